#pragma once

#include <errno.h>

/// The value of a call that says -1 and errno: the value, or -errno. Repeated while a signal interrupts it.
#define RESULT(call)                                                   \
    ({                                                                 \
        __typeof__(call) result_;                                      \
        do result_ = (call); while (result_ == -1 && errno == EINTR);  \
        result_ == -1 ? (__typeof__(result_))-errno : result_;         \
    })
