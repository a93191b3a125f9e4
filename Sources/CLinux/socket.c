#define _GNU_SOURCE
#include "CLinux.h"
#include "internal.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

// MARK: Addresses

static socklen_t to_kernel(const linux_address *address, struct sockaddr_storage *storage) {
    memset(storage, 0, sizeof *storage);
    if (address->family == LINUX_FAMILY_IPV4) {
        struct sockaddr_in *ipv4 = (struct sockaddr_in *)storage;
        ipv4->sin_family = AF_INET;
        ipv4->sin_port = htons(address->port);
        memcpy(&ipv4->sin_addr, address->bytes, 4);
        return sizeof *ipv4;
    }
    if (address->family == LINUX_FAMILY_IPV6) {
        struct sockaddr_in6 *ipv6 = (struct sockaddr_in6 *)storage;
        ipv6->sin6_family = AF_INET6;
        ipv6->sin6_port = htons(address->port);
        ipv6->sin6_scope_id = address->scope;
        memcpy(&ipv6->sin6_addr, address->bytes, 16);
        return sizeof *ipv6;
    }
    return 0;
}

static void from_kernel(const struct sockaddr_storage *storage, linux_address *address) {
    memset(address, 0, sizeof *address);
    if (storage->ss_family == AF_INET) {
        const struct sockaddr_in *ipv4 = (const struct sockaddr_in *)storage;
        address->family = LINUX_FAMILY_IPV4;
        address->port = ntohs(ipv4->sin_port);
        memcpy(address->bytes, &ipv4->sin_addr, 4);
    } else if (storage->ss_family == AF_INET6) {
        const struct sockaddr_in6 *ipv6 = (const struct sockaddr_in6 *)storage;
        address->port = ntohs(ipv6->sin6_port);
        if (IN6_IS_ADDR_V4MAPPED(&ipv6->sin6_addr)) {
            address->family = LINUX_FAMILY_IPV4;
            memcpy(address->bytes, ipv6->sin6_addr.s6_addr + 12, 4);
        } else {
            address->family = LINUX_FAMILY_IPV6;
            address->scope = ipv6->sin6_scope_id;
            memcpy(address->bytes, &ipv6->sin6_addr, 16);
        }
    } else if (storage->ss_family == AF_UNIX) {
        address->family = LINUX_FAMILY_UNIX;
    }
}

int linux_local_address(int fd, linux_address *address) {
    struct sockaddr_storage storage;
    socklen_t length = sizeof storage;
    int result = RESULT(getsockname(fd, (struct sockaddr *)&storage, &length));
    if (result == 0) from_kernel(&storage, address);
    return result;
}

// Where the packet that began a TCP connection came from. The kernel gives it once, and only of connections whose listener was told to keep it.
static int first_packet_address(int fd, linux_address *address) {
    // Its headers of IP and TCP.
    uint8_t packet[512];
    socklen_t length = sizeof packet;
    int result = RESULT(getsockopt(fd, IPPROTO_TCP, TCP_SAVED_SYN, packet, &length));
    if (result < 0) return result;
    struct sockaddr_storage storage;
    memset(&storage, 0, sizeof storage);
    if (length >= sizeof(struct iphdr) && packet[0] >> 4 == 4) {
        struct sockaddr_in *ipv4 = (struct sockaddr_in *)&storage;
        ipv4->sin_family = AF_INET;
        memcpy(&ipv4->sin_addr, packet + offsetof(struct iphdr, saddr), 4);
        size_t tcp = (packet[0] & 0x0f) * 4u;
        if (length >= tcp + 2) memcpy(&ipv4->sin_port, packet + tcp, 2);
    } else if (length >= sizeof(struct ip6_hdr) && packet[0] >> 4 == 6) {
        struct sockaddr_in6 *ipv6 = (struct sockaddr_in6 *)&storage;
        ipv6->sin6_family = AF_INET6;
        memcpy(&ipv6->sin6_addr, packet + offsetof(struct ip6_hdr, ip6_src), 16);
        size_t tcp = sizeof(struct ip6_hdr);
        if (packet[offsetof(struct ip6_hdr, ip6_nxt)] == IPPROTO_TCP && length >= tcp + 2) memcpy(&ipv6->sin6_port, packet + tcp, 2);
    } else {
        return -ENOTCONN;
    }
    from_kernel(&storage, address);
    return 0;
}

int linux_peer_address(int fd, linux_address *address) {
    struct sockaddr_storage storage;
    socklen_t length = sizeof storage;
    int result = RESULT(getpeername(fd, (struct sockaddr *)&storage, &length));
    if (result == 0) from_kernel(&storage, address);
    return result == -ENOTCONN ? first_packet_address(fd, address) : result;
}

static int unix_address(const char *path, size_t length, struct sockaddr_un *address, socklen_t *size) {
    if (length == 0) return -EINVAL;
    if (length >= sizeof address->sun_path) return -ENAMETOOLONG;
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    memcpy(address->sun_path, path, length);
    // An abstract name has exactly its bytes, a path ends with 0.
    *size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + (path[0] == 0 ? 0 : 1));
    return 0;
}

// MARK: Making sockets

/// Closes `fd` if `result` is an error; the descriptor or the error.
static int descriptor_or_error(int fd, int result) {
    if (result >= 0) return fd;
    close(fd);
    return result;
}

static int set_option(int fd, int level, int option, int value) { return RESULT(setsockopt(fd, level, option, &value, sizeof value)); }

/// Reno is in every kernel and free for everybody. That it cannot be had is no trouble: it is only slower.
static void send_unpaced(int fd) { setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4); }

int linux_bind_tcp(const linux_address *address, bool unpaced) {
    struct sockaddr_storage storage;
    socklen_t length = to_kernel(address, &storage);
    if (length == 0) return -EAFNOSUPPORT;
    int fd = RESULT(socket(storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP));
    if (fd < 0) return fd;
    int result = set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (result == 0 && storage.ss_family == AF_INET6) result = set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    // Without it we do not know who has gone; that is all.
    if (result == 0) set_option(fd, IPPROTO_TCP, TCP_SAVE_SYN, 1);
    if (unpaced) send_unpaced(fd);
    if (result == 0) result = RESULT(bind(fd, (struct sockaddr *)&storage, length));
    return descriptor_or_error(fd, result);
}

int linux_listen(int fd, int backlog) { return RESULT(listen(fd, backlog)); }

int linux_connect_tcp(const linux_address *address, bool unpaced) {
    struct sockaddr_storage storage;
    socklen_t length = to_kernel(address, &storage);
    if (length == 0) return -EAFNOSUPPORT;
    int fd = RESULT(socket(storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP));
    if (fd < 0) return fd;
    if (unpaced) send_unpaced(fd);
    int result = RESULT(connect(fd, (struct sockaddr *)&storage, length));
    return descriptor_or_error(fd, result == -EINPROGRESS ? 0 : result);
}

int linux_listen_unix(const char *path, size_t length, int backlog) {
    struct sockaddr_un address;
    socklen_t size;
    int result = unix_address(path, length, &address, &size);
    if (result < 0) return result;
    int fd = RESULT(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (fd < 0) return fd;
    // The file gets the mode that the socket has.
    result = RESULT(fchmod(fd, S_IRUSR | S_IWUSR));
    if (result == 0) result = RESULT(bind(fd, (struct sockaddr *)&address, size));
    if (result == 0) result = RESULT(listen(fd, backlog));
    return descriptor_or_error(fd, result);
}

int linux_connect_unix(const char *path, size_t length) {
    struct sockaddr_un address;
    socklen_t size;
    int result = unix_address(path, length, &address, &size);
    if (result < 0) return result;
    int fd = RESULT(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (fd < 0) return fd;
    return descriptor_or_error(fd, RESULT(connect(fd, (struct sockaddr *)&address, size)));
}

int linux_send_datagram(const char *path, size_t length, const void *bytes, size_t count) {
    struct sockaddr_un address;
    socklen_t size;
    int result = unix_address(path, length, &address, &size);
    if (result < 0) return result;
    int fd = RESULT(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (fd < 0) return fd;
    ssize_t sent = RESULT(sendto(fd, bytes, count, MSG_NOSIGNAL, (struct sockaddr *)&address, size));
    close(fd);
    return sent < 0 ? (int)sent : 0;
}

int linux_accept(int listener, linux_address *peer) {
    struct sockaddr_storage storage;
    socklen_t length = sizeof storage;
    memset(&storage, 0, sizeof storage);
    int fd = RESULT(accept4(listener, (struct sockaddr *)&storage, &length, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (fd >= 0 && peer) from_kernel(&storage, peer);
    return fd;
}

int linux_seqpacket_pair(int *first, int *second) {
    int pair[2];
    int result = RESULT(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair));
    if (result < 0) return result;
    *first = pair[0];
    *second = pair[1];
    return 0;
}

// MARK: Options

int linux_socket_error(int fd) {
    int error = 0;
    socklen_t length = sizeof error;
    int result = RESULT(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length));
    return result < 0 ? result : -error;
}

int linux_set_nodelay(int fd) { return set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1); }

int linux_set_keepalive(int fd, int idle, int interval, int count) {
    int result = linux_set_keepalive_idle(fd, idle);
    if (result == 0) result = set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, interval);
    if (result == 0) result = set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, count);
    if (result == 0) result = set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    return result;
}

int linux_set_keepalive_idle(int fd, int idle) { return set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, idle); }

int linux_set_nonblocking(int fd, bool nonblocking) {
    int flags = RESULT(fcntl(fd, F_GETFL));
    if (flags < 0) return flags;
    return RESULT(fcntl(fd, F_SETFL, nonblocking ? flags | O_NONBLOCK : flags & ~O_NONBLOCK));
}

int linux_set_buffers(int fd, int send, int receive) {
    int result = set_option(fd, SOL_SOCKET, SO_SNDBUF, send);
    return result < 0 ? result : set_option(fd, SOL_SOCKET, SO_RCVBUF, receive);
}

int linux_finish_sending(int fd) { return RESULT(shutdown(fd, SHUT_WR)); }

int linux_peer_credentials(int fd, int32_t *pid, uint32_t *uid, uint32_t *gid) {
    struct ucred credentials;
    socklen_t length = sizeof credentials;
    int result = RESULT(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length));
    if (result < 0) return result;
    *pid = credentials.pid;
    *uid = credentials.uid;
    *gid = credentials.gid;
    return 0;
}

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

int linux_peer_groups(int fd, uint32_t *groups, int capacity) {
    _Static_assert(sizeof(gid_t) == sizeof *groups, "a group has 32 bits");
    socklen_t length = (socklen_t)capacity * sizeof *groups;
    int result = RESULT(getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &length));
    return result < 0 ? result : (int)(length / sizeof *groups);
}

int linux_peer_pidfd(int fd) {
    int pidfd = -1;
    socklen_t length = sizeof pidfd;
    int result = RESULT(getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &length));
    return result < 0 ? result : pidfd;
}

// MARK: Bytes and messages

ssize_t linux_send_gathered(int fd, const struct iovec *pieces, int count) {
    struct msghdr message = {.msg_iov = (struct iovec *)pieces, .msg_iovlen = (size_t)count};
    return RESULT(sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT));
}

ssize_t linux_receive(int fd, void *bytes, size_t count) { return RESULT(recv(fd, bytes, count, MSG_DONTWAIT)); }
ssize_t linux_receive_both(int fd, void *bytes, size_t count, void *behind, size_t behind_count) {
    struct iovec pieces[2] = {{bytes, count}, {behind, behind_count}};
    struct msghdr message = {.msg_iov = pieces, .msg_iovlen = 2};
    return RESULT(recvmsg(fd, &message, MSG_DONTWAIT));
}
ssize_t linux_peek(int fd, void *bytes, size_t count) { return RESULT(recv(fd, bytes, count, MSG_DONTWAIT | MSG_PEEK)); }

union control {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(int) * LINUX_MOST_DESCRIPTORS)];
};

ssize_t linux_send_message(int fd, const void *bytes, size_t count, const int *descriptors, int descriptor_count) {
    if (descriptor_count < 0 || descriptor_count > LINUX_MOST_DESCRIPTORS) return -EINVAL;
    struct iovec piece = {(void *)bytes, count};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
    union control control;
    if (descriptor_count > 0) {
        memset(&control, 0, sizeof control);
        size_t size = sizeof(int) * (size_t)descriptor_count;
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(size);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(size);
        memcpy(CMSG_DATA(header), descriptors, size);
    }
    return RESULT(sendmsg(fd, &message, MSG_NOSIGNAL));
}

ssize_t linux_receive_message(int fd, void *bytes, size_t capacity, int *descriptors, int *descriptor_count, int *lost) {
    int room = *descriptor_count;
    *descriptor_count = 0;
    *lost = 0;
    struct iovec piece = {bytes, capacity};
    union control control;
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t length = RESULT(recvmsg(fd, &message, MSG_CMSG_CLOEXEC));
    if (length < 0) return length;
    bool fits = !(message.msg_flags & MSG_TRUNC);
    // There is room for all that a sender can send: the kernel cuts only where it cannot open what has come.
    *lost = (message.msg_flags & MSG_CTRUNC) != 0;
    int came = 0;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
        size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t index = 0; index < count; index++) {
            int descriptor;
            memcpy(&descriptor, CMSG_DATA(header) + index * sizeof(int), sizeof descriptor);
            if (came < room) {
                descriptors[came++] = descriptor;
            } else {
                close(descriptor);
                fits = false;
            }
        }
    }
    if (!fits) {
        for (int index = 0; index < came; index++) close(descriptors[index]);
        return -EMSGSIZE;
    }
    *descriptor_count = came;
    return length;
}
