#define _GNU_SOURCE
#include "CForget.h"

// A sanitizer has an allocator of its own.
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define OTHER_ALLOCATOR
#endif
#endif

#ifdef OTHER_ALLOCATOR

void forget_what_is_freed(bool forgets) { (void)forgets; }

#else

#include <malloc.h>
#include <stdatomic.h>
#include <string.h>

static atomic_bool is_told;

void forget_what_is_freed(bool forgets) { atomic_store(&is_told, forgets); }

static bool must_forget(void) { return atomic_load_explicit(&is_told, memory_order_relaxed); }

// glibc's own, under the names that it keeps for whoever stands before them.
void __libc_free(void *memory);
void *__libc_realloc(void *memory, size_t size);

// Where glibc marks what is free already, by which it finds out who frees twice. In an object of Swift's that is a count of references.
enum { MARK = 8, AFTER_MARK = 16 };

static void wipe(char *memory, size_t size) {
    explicit_bzero(memory, size < MARK ? size : MARK);
    if (size > AFTER_MARK) explicit_bzero(memory + AFTER_MARK, size - AFTER_MARK);
}

void free(void *memory) {
    if (memory && must_forget()) wipe(memory, malloc_usable_size(memory));
    __libc_free(memory);
}

void *realloc(void *memory, size_t size) {
    if (!memory || size == 0 || !must_forget()) return __libc_realloc(memory, size);
    size_t there = malloc_usable_size(memory);
    if (size <= there && size >= there / 2) return memory;
    void *other = malloc(size);
    if (!other) return NULL;
    memcpy(other, memory, size < there ? size : there);
    free(memory);
    return other;
}

#endif
