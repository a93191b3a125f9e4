/// Whether a loop lets others have its processor before it looks for events.
///
/// Who stands between two that speak with each other would, as soon as the one has said a little, carry that little: one system call
/// here, one there, one more to ask for the next. If those whose turn it is to speak and to hear go first, more is carried in one go. That
/// holds while events wait for the loop and not the loop for events; and where the processor is wanted by others, who has given it
/// up gets it back late, and keeps it for a while.
struct GivingWay {
    /// Away from the processor for longer, in nanoseconds, it was somebody else's who does not carry on what this loop does.
    static let longest: UInt64 = 1_000_000
    /// How long the processor is kept after that, in nanoseconds.
    static let rest: UInt64 = 1_000_000_000

    let isWanted: Bool
    private var isBehind = false
    private var pause: UInt64 = 0

    init(isWanted: Bool) { self.isWanted = isWanted }

    /// Whether to give way now.
    func isDue(now: UInt64) -> Bool { isWanted && isBehind && now >= pause }

    /// It has given way for so many nanoseconds.
    mutating func gaveWay(for nanoseconds: UInt64, now: UInt64) {
        if nanoseconds > Self.longest { pause = now + Self.rest }
    }

    /// It has looked without waiting, and found some events or none.
    mutating func looked(found count: Int) { isBehind = count > 0 }
}
