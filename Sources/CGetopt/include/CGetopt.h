// GNU getopt_long, which Swift's Glibc module leaves out, and functions for its variables, which Swift takes for shared ones.
#pragma once
#include <getopt.h>

static inline const char *option_argument(void) { return optarg; }
static inline int option_index(void) { return optind; }
/// Lets the next getopt_long begin with other words.
static inline void option_restart(void) { optind = 0; }
