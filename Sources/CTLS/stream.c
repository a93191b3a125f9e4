#include "CTLS.h"

#include <errno.h>
#include <openssl/bio.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

const uint64_t tls_options = SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET | SSL_OP_CIPHER_SERVER_PREFERENCE |
                             SSL_OP_NO_SESSION_RESUMPTION_ON_RENEGOTIATION | SSL_OP_IGNORE_UNEXPECTED_EOF | SSL_OP_NO_ENCRYPT_THEN_MAC |
                             SSL_OP_ENABLE_KTLS;
const uint64_t tls_all_options = ~(uint64_t)0;

// A socket BIO with three differences: no SIGPIPE, MSG_MORE, and no calls that can only say "later". Everything else, and what the
// kernel encrypts (kTLS), is left to OpenSSL's own.

static BIO_METHOD *method;
static int stream_index = -1;
static int (*socket_write)(BIO *, const char *, int);
static long (*socket_control)(BIO *, int, long, void *);

// BIO_CTRL_SET_KTLS, which openssl/bio.h reserves without a name; its number says whether it is for sending.
enum { SET_KERNEL_TLS = 72 };

static tls_stream *stream_of(BIO *bio) { return BIO_get_ex_data(bio, stream_index); }

static int stream_write(BIO *bio, const char *bytes, int count) {
    tls_stream *stream = stream_of(bio);
    BIO_clear_retry_flags(bio);
    if (stream->output_is_full) {
        BIO_set_retry_write(bio);
        return -1;
    }
    stream->send_calls += 1;
    ssize_t sent;
    if (stream->is_kernel_sending) {
        // It knows which type the record has.
        errno = 0;
        sent = socket_write(bio, bytes, count);
    } else {
        do sent = send(stream->descriptor, bytes, (size_t)count, MSG_NOSIGNAL | (stream->more_follows ? MSG_MORE : 0));
        while (sent < 0 && errno == EINTR);
    }
    if (sent < count) stream->output_is_full = true;
    if (sent >= 0) return (int)sent;
    if (errno == EAGAIN) {
        BIO_set_retry_write(bio);
    } else {
        stream->error = errno;
    }
    return -1;
}

// OpenSSL asks for the five bytes of a record's header, then for the rest of the record. One call gives what it asks for and, behind
// it, what comes next, to be copied out record by record: that costs less than a call for each. (Its own way, reading ahead, moves all
// it holds to the front at each record.)
enum { AHEAD = 64 << 10 };

static ssize_t receive(tls_stream *stream, void *bytes, size_t count) {
    if (stream->ahead_room < AHEAD) {
        free(stream->ahead);
        stream->ahead = malloc(AHEAD);
        stream->ahead_room = stream->ahead == NULL ? 0 : AHEAD;
    }
    size_t ahead = stream->ahead_room;
    struct iovec pieces[2] = {{bytes, count}, {stream->ahead, ahead}};
    struct msghdr message = {.msg_iov = pieces, .msg_iovlen = 2};
    ssize_t received;
    do received = recvmsg(stream->descriptor, &message, 0);
    while (received < 0 && errno == EINTR);
    if (received <= 0) return received;
    if ((size_t)received < count + ahead) stream->input_is_empty = true;
    if ((size_t)received <= count) return received;
    stream->ahead_start = 0;
    stream->ahead_count = (size_t)received - count;
    return (ssize_t)count;
}

static int stream_read(BIO *bio, char *bytes, int count) {
    tls_stream *stream = stream_of(bio);
    BIO_clear_retry_flags(bio);
    if (stream->updates_left < 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    if (stream->ahead_count > 0) {
        size_t taken = stream->ahead_count < (size_t)count ? stream->ahead_count : (size_t)count;
        memcpy(bytes, stream->ahead + stream->ahead_start, taken);
        stream->ahead_start += taken;
        stream->ahead_count -= taken;
        return (int)taken;
    }
    if (stream->input_is_empty || stream->receives_left <= 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    stream->receives_left -= 1;
    stream->receive_calls += 1;
    errno = 0;
    ssize_t received = receive(stream, bytes, (size_t)count);
    if (received > 0) {
        stream->received += (uint64_t)received + stream->ahead_count;
        return (int)received;
    }
    if (received == 0) {
        BIO_set_flags(bio, BIO_FLAGS_IN_EOF);
        return 0;
    }
    if (errno == EAGAIN) {
        stream->input_is_empty = true;
        BIO_set_retry_read(bio);
    } else {
        stream->error = errno;
    }
    return -1;
}

static long stream_control(BIO *bio, int command, long number, void *pointer) {
    if (command != SET_KERNEL_TLS) return socket_control(bio, command, number, pointer);
    // The kernel does not decrypt: it could for TLS 1.2 alone (OpenSSL 3.0), and only if nothing had been taken ahead.
    if (number == 0) return 0;
    long result = socket_control(bio, command, number, pointer);
    // From the very next record on, which may still be one of the handshake.
    if (result > 0) stream_of(bio)->is_kernel_sending = true;
    return result;
}

static void make_method(void) {
    const BIO_METHOD *socket = BIO_s_socket();
    stream_index = BIO_get_ex_new_index(0, NULL, NULL, NULL, NULL);
    BIO_METHOD *made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK | BIO_TYPE_DESCRIPTOR, "stream");
    if (stream_index < 0 || made == NULL) return;
    socket_write = BIO_meth_get_write(socket);
    BIO_meth_set_write(made, stream_write);
    BIO_meth_set_read(made, stream_read);
    socket_control = BIO_meth_get_ctrl(socket);
    BIO_meth_set_ctrl(made, stream_control);
    BIO_meth_set_create(made, BIO_meth_get_create(socket));
    BIO_meth_set_destroy(made, BIO_meth_get_destroy(socket));
    method = made;
}

// KeyUpdate (RFC 8446 §4.6.3): a type, three bytes of length, and whether the other side is to change its key, too.
static void count_key_updates(int is_sent, int version, int type, const void *bytes, size_t count, SSL *connection, void *stream) {
    if (!is_sent && type == SSL3_RT_HANDSHAKE && count > 0 && *(const unsigned char *)bytes == SSL3_MT_KEY_UPDATE) {
        ((tls_stream *)stream)->key_updates += 1;
        ((tls_stream *)stream)->updates_left -= 1;
        if (count > 4 && ((const unsigned char *)bytes)[4] == SSL_KEY_UPDATE_REQUESTED) ((tls_stream *)stream)->is_asked_for_fresh_key = true;
    }
}

int tls_stream_attach(SSL *connection, tls_stream *stream) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_method);
    BIO *bio = method == NULL ? NULL : BIO_new(method);
    if (bio == NULL) return 0;
    if (BIO_set_ex_data(bio, stream_index, stream) != 1) {
        BIO_free(bio);
        return 0;
    }
    BIO_set_fd(bio, stream->descriptor, BIO_NOCLOSE);
    SSL_set_bio(connection, bio, bio);
    SSL_set_msg_callback(connection, count_key_updates);
    SSL_set_msg_callback_arg(connection, stream);
    return 1;
}

void tls_stream_begin(tls_stream *stream, int receives, int updates) {
    stream->more_follows = stream->output_is_full = stream->input_is_empty = false;
    stream->receives_left = receives;
    stream->updates_left = updates;
}

void tls_stream_end(tls_stream *stream) {
    size_t count = stream->ahead_count;
    if (count == stream->ahead_room) return;
    uint8_t *kept = NULL;
    if (count > 0) {
        kept = malloc(count);
        if (kept == NULL) return;
        memcpy(kept, stream->ahead + stream->ahead_start, count);
    }
    free(stream->ahead);
    stream->ahead = kept;
    stream->ahead_start = 0;
    stream->ahead_room = count;
}
