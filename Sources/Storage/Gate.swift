import CLinux
import Glibc

/// Many at once or one alone: what keeps an atomic operation apart from all others. Who wants to be alone waits for nobody that
/// comes later.
@safe final class Gate: @unchecked Sendable {
    private let lock: UnsafeMutablePointer<pthread_rwlock_t>

    init() {
        unsafe lock = .allocate(capacity: 1)
        let result = unsafe linux_rwlock_init(lock)
        precondition(result == 0, "a lock in own memory can be made")
    }

    deinit {
        _ = unsafe pthread_rwlock_destroy(lock)
        unsafe lock.deallocate()
    }

    /// Runs `body` together with others, or alone.
    func pass<R>(alone: Bool, _ body: () -> R) -> R {
        _ = unsafe alone ? pthread_rwlock_wrlock(lock) : pthread_rwlock_rdlock(lock)
        defer { _ = unsafe pthread_rwlock_unlock(lock) }
        return body()
    }

    /// Runs `body` together with others; nil if it would have to wait for that.
    func passAtOnce<R>(_ body: () -> R?) -> R? {
        guard unsafe pthread_rwlock_tryrdlock(lock) == 0 else { return nil }
        defer { _ = unsafe pthread_rwlock_unlock(lock) }
        return body()
    }
}
