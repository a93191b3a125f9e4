#ifndef CFORGET_H
#define CFORGET_H

#include <stdbool.h>

/// From here on, until it is told otherwise, this process overwrites whatever memory it gives back, whoever had it: a program that contains
/// this has its own `free` and `realloc`, which the libraries that it uses take, too. So nothing is left of a secret but where it is still in
/// use: no copy in a buffer that grew, none in a request that has been answered.
///
/// Not overwritten: a thread's stack and registers, and what a process leaves at its end, which the kernel clears.
void forget_what_is_freed(bool forgets);

#endif
