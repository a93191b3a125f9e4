import DequeModule
import ISCSI
import SCSI

/// The task set of one I_T_L nexus (control mode page TST = 001b): which tasks may run (SAM-5 §8).
///
/// Tasks in the order they came form groups: neighbouring SIMPLE ones share a group, an ORDERED one is alone in its. Only the
/// front group may run, and only while there is no HEAD OF QUEUE task, which may always run.
struct TaskSet {
    /// Where a task stands.
    struct Place {
        /// Number of its group; nil for HEAD OF QUEUE.
        fileprivate let group: UInt64?
    }

    private struct Group {
        var live: Int
        let isOrdered: Bool
    }

    private struct Dormant {
        let task: TaskIndex
        let group: UInt64
    }

    private var groups: Deque<Group> = []
    /// Number of the front group.
    private var front: UInt64 = 0
    private var headsOfQueue = 0
    private var dormant: Deque<Dormant> = []

    /// A task enters.
    /// - Returns: where it stands, and whether it may run at once; if not, `nextToRun` says when.
    mutating func enter(_ task: TaskIndex, _ attribute: TaskAttribute) -> (place: Place, mayRun: Bool) {
        switch attribute {
        case .headOfQueue:
            headsOfQueue += 1
            return (Place(group: nil), true)
        case .ordered, .aca:
            groups.append(Group(live: 1, isOrdered: true))
        case .simple, .untagged:
            if let last = groups.last, !last.isOrdered {
                groups[groups.count - 1].live += 1
            } else {
                groups.append(Group(live: 1, isOrdered: false))
            }
        }
        let group = front + UInt64(groups.count - 1)
        let mayRun = group == front && headsOfQueue == 0
        if !mayRun { dormant.append(Dormant(task: task, group: group)) }
        return (Place(group: group), mayRun)
    }

    /// A task leaves: it is over, or aborted. Then others may run.
    mutating func leave(_ task: TaskIndex, _ place: Place, mayRun: Bool) {
        if !mayRun { dormant.removeAll { $0.task == task } }
        if let group = place.group {
            groups[Int(group - front)].live -= 1
        } else {
            headsOfQueue -= 1
        }
        while let first = groups.first, first.live == 0 {
            groups.removeFirst()
            front += 1
        }
    }

    /// A task that had to wait and may run now; each is told once.
    mutating func nextToRun() -> TaskIndex? {
        guard headsOfQueue == 0, let first = dormant.first, first.group == front else { return nil }
        return dormant.removeFirst().task
    }
}
