#ifndef COPENSSL_H
#define COPENSSL_H

// OpenSSL 3, as far as `Crypto` and `TLS` call it.
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/params.h>
#include <openssl/pem.h>
#include <openssl/provider.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

// Macros that Swift does not import.
static inline void *portcullis_malloc(size_t count) { return OPENSSL_malloc(count); }
static inline void portcullis_clear_free(void *start, size_t count) { OPENSSL_clear_free(start, count); }
static inline void portcullis_free(void *start) { OPENSSL_free(start); }
static const unsigned long portcullis_name_in_one_line = XN_FLAG_RFC2253;

#endif
