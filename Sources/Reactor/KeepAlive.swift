/// When a silent TCP connection is probed (RFC 1122 §4.2.3.6), in seconds.
///
/// Thousands that have come at the same time, as after a restart, fall silent at the same time. If all of them were probed after the
/// same silence, and again and again after the same interval, more probes would go at once than the kernel's queues take (a thousand
/// for a processor): who is alive would count as dead. So the silence before the first probe differs from one to the next.
enum KeepAlive {
    static let silence: ClosedRange<Int32> = 15...60
    static let interval: Int32 = 10
    /// So many unanswered probes end the connection.
    static let count: Int32 = 6

    /// The silence of one of many that are numbered one after the other.
    static func silence(of number: UInt16) -> Int32 { silence.lowerBound + Int32(number) % Int32(silence.count) }
}
