/// How long a loop looks for events again and again before it sleeps. Being woken costs more than the whole of a small request, so it
/// pays where the next event is nearly there; where it does not, the processor belongs to others.
///
/// The window follows what waiting has come to, as that of Linux's halt polling does (Documentation/virt/kvm/halt-polling.rst): it grows
/// while the waits are shorter than `most`, and is given up at the first that is longer. Where the processor was taken away meanwhile, it is
/// wanted elsewhere: who looks then is served worse than who sleeps, and the looking ends for a while. And only turns with little work are
/// worth it: after others being woken is a small part of the whole, and more comes together while it lasts.
struct BusyPolling {
    /// What the window may grow to, in nanoseconds; 0: never look, always sleep.
    let most: UInt64
    /// Nanoseconds to look before sleeping.
    private(set) var window: UInt64 = 0
    /// Until when it only sleeps.
    private var pause: UInt64 = 0

    /// What a window begins with, in nanoseconds.
    static let first: UInt64 = 10_000
    /// The work of a turn after which looking pays, in nanoseconds: about as much as being woken costs.
    static let longestWork: UInt64 = 30_000
    /// How long it only sleeps when the processor was taken away, in nanoseconds.
    static let rest: UInt64 = 1_000_000_000

    init(most: UInt64) { self.most = most }

    /// Between two looks more than `most` nanoseconds have passed: the processor was somebody else's.
    mutating func lostProcessor(now: UInt64) {
        window = 0
        pause = now + Self.rest
    }

    /// An event has come after so many nanoseconds of waiting, looking and sleeping together.
    mutating func waited(_ nanoseconds: UInt64, now: UInt64) {
        if nanoseconds > most || now < pause {
            window = 0
        } else if nanoseconds > window {
            window = min(most, max(Self.first, 2 * window))
        }
    }
}
