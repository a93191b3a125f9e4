/// The slots of tasks by their Initiator Task Tags: open addressing with linear probing, never more than half full.
///
/// An initiator chooses its tags, so it can make them collide. What that costs is bounded by the tasks of one connection
/// (the agreed queue depth, `FullFeatureLimits.immediate` and `draining`): a walk over as many entries as it has tasks.
struct TagTable {
    private struct Entry {
        var tag: UInt32 = 0
        /// −1: nothing is here.
        var slot: Int32 = -1
    }

    private var entries: [Entry] = []
    private var count = 0

    private static let smallest = 16
    /// 2³² divided by the golden ratio: neighbouring tags come to lie apart (Knuth, vol. 3, §6.4).
    private static let multiplier: UInt32 = 0x9e37_79b9

    subscript(tag: UInt32) -> Int? {
        get {
            guard count > 0, let position = find(tag) else { return nil }
            return Int(entries[position].slot)
        }
        set {
            if let newValue { insert(tag, Int32(newValue)) } else if count > 0, let position = find(tag) { remove(at: position) }
        }
    }

    private func home(_ tag: UInt32) -> Int {
        // The upper bits are the well mixed ones.
        Int((tag &* Self.multiplier) >> (32 - UInt32(truncatingIfNeeded: entries.count.trailingZeroBitCount)))
    }

    private func next(_ position: Int) -> Int { (position + 1) & (entries.count - 1) }

    private func find(_ tag: UInt32) -> Int? {
        var position = home(tag)
        while entries[position].slot >= 0 {
            if entries[position].tag == tag { return position }
            position = next(position)
        }
        return nil
    }

    private mutating func insert(_ tag: UInt32, _ slot: Int32) {
        if 2 * (count + 1) > entries.count { grow() }
        var position = home(tag)
        while entries[position].slot >= 0, entries[position].tag != tag { position = next(position) }
        if entries[position].slot < 0 { count += 1 }
        entries[position] = Entry(tag: tag, slot: slot)
    }

    /// Moves up those behind it that would not be found any more.
    private mutating func remove(at hole: Int) {
        var hole = hole
        var position = next(hole)
        while entries[position].slot >= 0 {
            let distance = (position - home(entries[position].tag)) & (entries.count - 1)
            if distance >= (position - hole) & (entries.count - 1) {
                entries[hole] = entries[position]
                hole = position
            }
            position = next(position)
        }
        entries[hole] = Entry()
        count -= 1
    }

    private mutating func grow() {
        let old = entries
        entries = [Entry](repeating: Entry(), count: max(Self.smallest, 2 * old.count))
        count = 0
        for entry in old where entry.slot >= 0 { insert(entry.tag, entry.slot) }
    }
}
