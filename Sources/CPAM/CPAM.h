#ifndef CPAM_H
#define CPAM_H

// Linux-PAM, as far as `PAM` calls it.
#include <security/pam_appl.h>

#endif
