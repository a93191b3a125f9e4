// limit: what the machine under a target can do. One pread, pwrite or fdatasync for each command, in place, and nothing else: a
// blocking thread for each connection, no parsing beyond what an answer needs, no checks, no sense data. A login is two
// answers that are always the same; a thread goes on with the next connection.
// It is the yardstick of bench.py and good for nothing else.
//
// Usage: limit PORT FILE      serves FILE as LUN 1 on 127.0.0.1:PORT, whatever target name is asked for
//
// Offsets in PDUs are those of RFC 7143 §11, in CDBs those of SBC-3 §5.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <endian.h>
#include <err.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    HEADER = 48,
    BLOCK = 512,
    SEGMENT = 256 << 10,       // MaxRecvDataSegmentLength and FirstBurstLength: all data of a write come with its command
    SPACE = 4 * SEGMENT,       // bytes received, or gathered for a send, at once
    WINDOW = 128,
    THREADS = 64,              // more than any case has connections
};

enum { NOP_OUT = 0x00, COMMAND = 0x01, LOGIN = 0x03, LOGOUT = 0x06 };
enum { NOP_IN = 0x20, RESPONSE = 0x21, LOGIN_RESPONSE = 0x23, DATA_IN = 0x25, LOGOUT_RESPONSE = 0x26 };

static int listener, store;
static uint64_t blocks;

typedef struct {
    int socket;
    bool is_over;
    uint32_t stat_sn, exp_cmd_sn;
    size_t received, gathered;
    uint8_t in[SPACE], out[SPACE];
} connection;

static uint32_t get32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return be32toh(v); }
static uint64_t get64(const uint8_t *p) { uint64_t v; memcpy(&v, p, 8); return be64toh(v); }
static void put32(uint8_t *p, uint32_t v) { v = htobe32(v); memcpy(p, &v, 4); }
static void put64(uint8_t *p, uint64_t v) { v = htobe64(v); memcpy(p, &v, 8); }
static size_t padded(size_t length) { return (length + 3) & ~(size_t)3; }

static void send_gathered(connection *c) {
    for (size_t sent = 0; sent < c->gathered && !c->is_over;) {
        ssize_t count = send(c->socket, c->out + sent, c->gathered - sent, MSG_NOSIGNAL);
        if (count <= 0) c->is_over = true;
        sent += (size_t)count;
    }
    c->gathered = 0;
}

// Room for an answer to `request` with `length` bytes of data. Returns its header; the data follow it.
static uint8_t *answer(connection *c, const uint8_t *request, uint8_t opcode, uint8_t flags, size_t length) {
    if (c->gathered + HEADER + padded(length) > SPACE) send_gathered(c);
    uint8_t *header = c->out + c->gathered;
    memset(header, 0, HEADER);
    header[0] = opcode;
    header[1] = flags;
    put32(header + 4, (uint32_t)length);
    memcpy(header + 16, request + 16, 4);
    put32(header + 24, c->stat_sn++);
    put32(header + 28, c->exp_cmd_sn);
    put32(header + 32, c->exp_cmd_sn + WINDOW - 1);
    memset(header + HEADER + length, 0, padded(length) - length);  // what stood there before is no text of a login
    c->gathered += HEADER + padded(length);
    return header;
}

// Data-In with GOOD status; `least` bytes if the initiator takes as many.
static uint8_t *data_in(connection *c, const uint8_t *request, size_t least) {
    size_t expected = get32(request + 20), length = least < expected ? least : expected;
    uint8_t *header = answer(c, request, DATA_IN, length < expected ? 0x83 : 0x81, length);
    put32(header + 20, UINT32_MAX);
    put32(header + 44, (uint32_t)(expected - length));
    return header + HEADER;
}

static void small_data_in(connection *c, const uint8_t *request, const uint8_t *data, size_t length) {
    size_t expected = get32(request + 20);
    memcpy(data_in(c, request, length), data, length < expected ? length : expected);
}

static void command(connection *c, const uint8_t *request, const uint8_t *data, size_t length) {
    const uint8_t *cdb = request + 32;
    uint8_t reply[64] = {0};
    switch (cdb[0]) {
    case 0x28: case 0x88: {  // READ(10), READ(16)
        uint64_t lba = cdb[0] == 0x28 ? get32(cdb + 2) : get64(cdb + 2);
        size_t wanted = get32(request + 20);
        if (wanted > SEGMENT) errx(1, "a read of more than one data segment");
        if (pread(store, data_in(c, request, wanted), wanted, (off_t)(lba * BLOCK)) != (ssize_t)wanted) err(1, "pread");
        return;
    }
    case 0x2a: case 0x8a: {  // WRITE(10), WRITE(16)
        uint64_t lba = cdb[0] == 0x2a ? get32(cdb + 2) : get64(cdb + 2);
        if (length != get32(request + 20)) errx(1, "a write whose data do not come with it");
        if (pwrite(store, data, length, (off_t)(lba * BLOCK)) != (ssize_t)length) err(1, "pwrite");
        break;
    }
    case 0x12:  // INQUIRY
        if (cdb[1] & 1) {  // no page but its own header
            reply[1] = cdb[2];
            return small_data_in(c, request, reply, 4);
        }
        reply[2] = 6;
        reply[3] = 2;
        reply[4] = 31;
        memcpy(reply + 8, "BENCH   LIMIT           1   ", 28);
        return small_data_in(c, request, reply, 36);
    case 0x9e:  // READ CAPACITY(16)
        put64(reply, blocks - 1);
        put32(reply + 8, BLOCK);
        return small_data_in(c, request, reply, 32);
    case 0x25:  // READ CAPACITY(10)
        put32(reply, (uint32_t)(blocks - 1));
        put32(reply + 4, BLOCK);
        return small_data_in(c, request, reply, 8);
    case 0x1a:  // MODE SENSE(6)
        reply[0] = 3;
        return small_data_in(c, request, reply, 4);
    case 0x35: case 0x91:  // SYNCHRONIZE CACHE(10), (16)
        if (fdatasync(store) != 0) err(1, "fdatasync");
        break;
    default: break;  // TEST UNIT READY
    }
    answer(c, request, RESPONSE, 0x80, 0);
}

static void login(connection *c, const uint8_t *request) {
    static const char security[] = "AuthMethod=None\0TargetPortalGroupTag=1";
    static const char operational[] =
        "HeaderDigest=None\0DataDigest=None\0InitialR2T=No\0ImmediateData=Yes\0MaxRecvDataSegmentLength=262144\0"
        "FirstBurstLength=262144\0MaxBurstLength=262144\0MaxConnections=1\0MaxOutstandingR2T=1\0ErrorRecoveryLevel=0\0"
        "DataPDUInOrder=Yes\0DataSequenceInOrder=Yes\0DefaultTime2Wait=2\0DefaultTime2Retain=0";
    bool is_first = (request[1] & 0x0c) == 0;
    const char *text = is_first ? security : operational;
    size_t length = is_first ? sizeof security : sizeof operational;
    c->exp_cmd_sn = get32(request + 24);
    uint8_t *header = answer(c, request, LOGIN_RESPONSE, request[1], length);
    memcpy(header + 8, request + 8, 6);  // ISID
    header[15] = 1;                      // TSIH
    memcpy(header + HEADER, text, length);
}

static void handle(connection *c, const uint8_t *request, const uint8_t *data, size_t length) {
    if (!(request[0] & 0x40)) c->exp_cmd_sn = get32(request + 24) + 1;
    switch (request[0] & 0x3f) {
    case COMMAND: return command(c, request, data, length);
    case LOGIN: return login(c, request);
    case NOP_OUT:
        if (get32(request + 16) != UINT32_MAX) put32(answer(c, request, NOP_IN, 0x80, 0) + 20, UINT32_MAX);
        return;
    case LOGOUT: answer(c, request, LOGOUT_RESPONSE, 0x80, 0); return;
    default: errx(1, "a PDU that no case of the benchmark sends: %02x", request[0]);
    }
}

static void serve(connection *c) {
    while (!c->is_over) {
        ssize_t count = recv(c->socket, c->in + c->received, SPACE - c->received, 0);
        if (count <= 0) return;
        c->received += (size_t)count;
        size_t done = 0;
        while (c->received - done >= HEADER) {
            const uint8_t *request = c->in + done;
            size_t additional = request[4] * 4u, length = get32(request + 4) & 0xffffff;
            size_t whole = HEADER + additional + padded(length);
            if (whole > SPACE) errx(1, "a PDU longer than any that is allowed");
            if (c->received - done < whole) break;
            handle(c, request, request + HEADER + additional, length);
            done += whole;
        }
        memmove(c->in, c->in + done, c->received - done);
        c->received -= done;
        send_gathered(c);
    }
}

static void *serve_one_after_the_other(void *argument) {
    const int on = 1;
    connection *c = argument;
    while (true) {
        if ((c->socket = accept(listener, NULL, NULL)) < 0) err(1, "accept");
        setsockopt(c->socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        c->is_over = false;
        c->stat_sn = 1;
        c->received = c->gathered = 0;
        serve(c);
        close(c->socket);
    }
}

int main(int count, char **arguments) {
    if (count != 3) errx(2, "usage: limit PORT FILE");
    store = open(arguments[2], O_RDWR | O_CLOEXEC);
    struct stat status;
    if (store < 0 || fstat(store, &status) < 0) err(1, "%s", arguments[2]);
    blocks = (uint64_t)status.st_size / BLOCK;

    const int on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(arguments[1])), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(listener, IPPROTO_TCP, TCP_CONGESTION, "reno", 4);  // nothing is paced within the host
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 16) < 0) err(1, "port %s", arguments[1]);
    for (int number = 0; number < THREADS; number++) {
        connection *c = calloc(1, sizeof *c);
        pthread_t thread;
        if (!c || pthread_create(&thread, NULL, serve_one_after_the_other, c) != 0) errx(1, "no thread");
    }
    pause();
}
