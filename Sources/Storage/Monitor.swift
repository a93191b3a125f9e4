import Glibc

/// State behind a lock, with a bell for those who wait for it to change.
@safe final class Monitor<State>: @unchecked Sendable {
    private let mutex: UnsafeMutablePointer<pthread_mutex_t>
    private let bell: UnsafeMutablePointer<pthread_cond_t>
    private var state: State

    init(_ state: State) {
        self.state = state
        unsafe mutex = .allocate(capacity: 1)
        unsafe bell = .allocate(capacity: 1)
        unsafe pthread_mutex_init(mutex, nil)
        unsafe pthread_cond_init(bell, nil)
    }

    deinit {
        unsafe pthread_cond_destroy(bell)
        unsafe pthread_mutex_destroy(mutex)
        unsafe bell.deallocate()
        unsafe mutex.deallocate()
    }

    func withLock<R>(_ body: (inout State) -> R) -> R {
        unsafe pthread_mutex_lock(mutex)
        defer { unsafe pthread_mutex_unlock(mutex) }
        return body(&state)
    }

    /// Waits until `body` gives a value.
    func wait<R>(_ body: (inout State) -> R?) -> R {
        unsafe pthread_mutex_lock(mutex)
        defer { unsafe pthread_mutex_unlock(mutex) }
        while true {
            if let value = body(&state) { return value }
            unsafe pthread_cond_wait(bell, mutex)
        }
    }

    func ringOne() { unsafe pthread_cond_signal(bell) }
    func ringAll() { unsafe pthread_cond_broadcast(bell) }
}
