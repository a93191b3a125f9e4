/// A timer of an event loop; never used again.
public struct TimerID: Hashable, Sendable {
    fileprivate let slot: Int
    fileprivate let generation: UInt64
}

/// Timers by deadline, then by age: a binary heap whose entries know their place, so that a cancelled timer leaves at once and
/// the queue never holds more than the timers that can still fire.
struct TimerQueue {
    private struct Slot {
        var generation: UInt64
        var deadline: UInt64
        var place: Int
        var work: (() -> Void)?
    }

    private var slots: [Slot] = []
    private var freeSlots: [Int] = []
    /// Indices into `slots`.
    private var heap: [Int] = []
    private var generations: UInt64 = 0

    var count: Int { heap.count }
    /// The earliest deadline.
    var next: UInt64? { heap.first.map { slots[$0].deadline } }

    mutating func schedule(at deadline: UInt64, _ work: @escaping () -> Void) -> TimerID {
        generations += 1
        let entry = Slot(generation: generations, deadline: deadline, place: heap.count, work: work)
        let slot: Int
        if let free = freeSlots.popLast() {
            slot = free
            slots[slot] = entry
        } else {
            slot = slots.count
            slots.append(entry)
        }
        heap.append(slot)
        rise(heap.count - 1)
        return TimerID(slot: slot, generation: generations)
    }

    /// Whether the timer was still to fire.
    @discardableResult
    mutating func cancel(_ timer: TimerID) -> Bool {
        guard slots[timer.slot].generation == timer.generation, slots[timer.slot].work != nil else { return false }
        _ = remove(at: slots[timer.slot].place)
        return true
    }

    /// Takes out the next timer that is due at `now` and is not younger than `newest`.
    mutating func takeDue(at now: UInt64, notAfter newest: UInt64) -> (() -> Void)? {
        guard let slot = heap.first, slots[slot].deadline <= now, slots[slot].generation <= newest else { return nil }
        return remove(at: 0)
    }

    /// The generation of the timer that was made last.
    var newest: UInt64 { generations }

    private mutating func remove(at place: Int) -> (() -> Void)? {
        let slot = heap[place]
        let last = heap.removeLast()
        if place < heap.count {
            put(last, at: place)
            sink(place)
            rise(place)
        }
        let work = slots[slot].work
        slots[slot].work = nil
        freeSlots.append(slot)
        return work
    }

    private func isEarlier(_ first: Int, _ second: Int) -> Bool {
        let (first, second) = (slots[first], slots[second])
        return (first.deadline, first.generation) < (second.deadline, second.generation)
    }

    private mutating func put(_ slot: Int, at place: Int) {
        heap[place] = slot
        slots[slot].place = place
    }

    private mutating func rise(_ start: Int) {
        var place = start
        while place > 0, isEarlier(heap[place], heap[(place - 1) / 2]) {
            swapPlaces(place, (place - 1) / 2)
            place = (place - 1) / 2
        }
    }

    private mutating func sink(_ start: Int) {
        var place = start
        while true {
            var child = 2 * place + 1
            guard child < heap.count else { return }
            if child + 1 < heap.count, isEarlier(heap[child + 1], heap[child]) { child += 1 }
            guard isEarlier(heap[child], heap[place]) else { return }
            swapPlaces(place, child)
            place = child
        }
    }

    private mutating func swapPlaces(_ first: Int, _ second: Int) {
        let moved = heap[first]
        put(heap[second], at: first)
        put(moved, at: second)
    }
}
