// What `TLS` needs in C: a signing provider for OpenSSL and a BIO that tells and is told more than OpenSSL's own.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#pragma clang assume_nonnull begin

typedef struct ossl_lib_ctx_st OSSL_LIB_CTX;
typedef struct evp_pkey_st EVP_PKEY;
typedef struct ssl_st SSL;

// MARK: Signing by somebody else (provider.c)

/// Who signs for a key. It must outlive the key.
typedef struct {
    void *_Nullable context;
    /// Signs the whole `message` by the TLS signature scheme `scheme` (RFC 8446 §4.2.3) and writes at most `capacity` bytes to
    /// `signature`; returns how many, or 0: refused. It may block.
    size_t (*sign)(void *_Nullable context, uint16_t scheme, const uint8_t *message, size_t length, uint8_t *signature, size_t capacity);
} tls_signer;

/// The library in the error queue (ERR_GET_LIB) of a signature that was refused.
enum { TLS_LIBRARY_OF_REFUSALS = 128 };

/// Adds the provider to a library context. 1: it is there; 0: not.
int tls_signing_provider_add(OSSL_LIB_CTX *library);
/// A key whose public half is that of `public_key` and whose signatures come from `signer`; NULL: a kind that is not supported.
EVP_PKEY *_Nullable tls_signing_key(OSSL_LIB_CTX *library, EVP_PKEY *public_key, const tls_signer *signer);

// MARK: The socket below a connection (stream.c)

/// What a connection and its BIO tell each other.
typedef struct {
    int descriptor;
    /// More is sent right after this: the kernel may wait for it (MSG_MORE).
    bool more_follows;
    /// How many times it may still receive: then it says "later", though there may be more in the socket.
    int receives_left;
    /// How many fresh keys of the other side may come in this use: then it says "later", too, whatever has been received.
    int updates_left;
    /// The socket took or gave less than it could have: no use in asking again before epoll has told.
    bool output_is_full, input_is_empty;
    /// The kernel encrypts what is sent (kTLS).
    bool is_kernel_sending;
    /// The other side has asked, once at least, that we encrypt with a fresh key.
    bool is_asked_for_fresh_key;
    /// errno of what ended the connection; 0: nothing.
    int error;
    /// What was received beyond what OpenSSL asked for: `ahead_count` bytes from `ahead_start` on. NULL while there is nothing; between
    /// uses there is room for no more than that.
    uint8_t *_Nullable ahead;
    size_t ahead_start, ahead_count, ahead_room;
    /// So far: bytes received, calls to receive and to send, fresh keys of the other side.
    uint64_t received, receive_calls, send_calls, key_updates;
} tls_stream;

/// Lays a connection over `stream`, which must outlive it. The descriptor is never closed. 1, or 0: no memory.
int tls_stream_attach(SSL *connection, tls_stream *stream);
/// Before each use of the connection: it may receive so many times, take so many fresh keys, and send until the socket is full.
void tls_stream_begin(tls_stream *stream, int receives, int updates);
/// After each use: an idle connection keeps no memory, another what it has received and not used.
void tls_stream_end(tls_stream *stream);

// MARK: Options (stream.c)

/// SSL_OP_*: neither renegotiation nor compression nor tickets; the server's preferences; a lost end is an end; kTLS where there.
extern const uint64_t tls_options;
/// Every option there is, to start from none.
extern const uint64_t tls_all_options;

#pragma clang assume_nonnull end
