#ifndef COPENSSL_H
#define COPENSSL_H

// OpenSSL 3's libcrypto, as far as `Crypto` calls it.
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/params.h>
#include <openssl/rand.h>

// Macros that Swift does not import.
static inline void *portcullis_malloc(size_t count) { return OPENSSL_malloc(count); }
static inline void portcullis_clear_free(void *start, size_t count) { OPENSSL_clear_free(start, count); }

#endif
