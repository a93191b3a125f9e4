// Target
