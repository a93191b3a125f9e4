import Access
import Door
import Logging
import PAM
import Reactor

/// Bounds of knowing administrators.
enum PeerLimits {
    /// Processes at once for one user, and for all. More wait: as long as one user's prompts are open, the other users' requests go on. Root and our own
    /// user do not wait for the others.
    static let perUser = 16
    static let processes = 64
    /// Nanoseconds that somebody who has been refused waits for his next process, and has but one at a time: the first time, at the most, and
    /// how long after the last refusal that is over. Neither root nor our own user.
    static let pauses: ClosedRange<UInt64> = 20_000_000...1_000_000_000
    static let forgotten: UInt64 = 30_000_000_000
    /// Users of whom that is known; the others have one pause together.
    static let refused = 1024
    /// Nanoseconds for the name service and for PAM; and where somebody is asked and has to type. Then the process is ended, with all that it
    /// has started.
    static let patience: UInt64 = 10_000_000_000
    static let typing: UInt64 = 90_000_000_000

    /// Whether a number is somebody's: not the one that stands for whoever has none here, and not the one that means none (-1).
    static func isSomebody(_ uid: UInt32) -> Bool { uid != 65534 && uid != .max }
    /// Whether it is root's, or our own: these are served whatever the others do.
    static func goesFirst(_ uid: UInt32) -> Bool { uid == 0 || uid == Identity.current.uid }
}

/// Somebody with a request at the management socket.
final class Asker {
    let peer: ConnectedPeer
    /// The connection of a client with which somebody can be asked.
    let conversation: Int32?
    /// Somebody is being asked: the request waits for him.
    fileprivate(set) var isConversing = false
    fileprivate var whenGone: (() -> Void)?

    init(_ peer: ConnectedPeer, conversation: Int32?) {
        self.peer = peer
        self.conversation = conversation
    }

    var uid: UInt32 { peer.credentials.uid }
    /// Its groups that are somebody's: the number that stands for whatever has none here is in no grant.
    var gids: Set<UInt32> { peer.groups.filter(PeerLimits.isSomebody) }
    /// By the kernel's word alone.
    var byNumbers: Peer { Peer(uid: uid, gids: gids) }

    /// The connection is closed.
    func isGone() { whenGone?() }
}

/// One transaction with the process that knows people: who is it, and may he go on?
final class PeerCheck {
    enum Trouble: Error, CustomStringConvertible {
        /// No answer in time, or the process has failed.
        case failed(String)
        /// Whoever asks has closed the connection.
        case gone

        var description: String {
            switch self {
            case .failed(let reason): reason
            case .gone: "whoever asks has gone away"
            }
        }
    }
    typealias Identified = (PeerCheck, Result<Peer, Trouble>) -> Void
    typealias Verdict = (Result<(PAMVerdict, wantedConversation: Bool), Trouble>) -> Void

    fileprivate let uid: UInt32
    private let first: AdministratorQuestion
    private let checks: PeerChecks
    private let asker: Asker?
    private var process: DoorProcess<AdministratorAnswer, AdministratorQuestion>?
    private var deadline: TimerID?
    private var whenIdentified: Identified?
    private var whenJudged: Verdict?

    fileprivate init(_ checks: PeerChecks, uid: UInt32, _ first: AdministratorQuestion, _ asker: Asker?, _ whenIdentified: @escaping Identified) {
        self.checks = checks
        self.uid = uid
        self.first = first
        self.asker = asker
        self.whenIdentified = whenIdentified
        asker?.whenGone = { [weak self] in self?.fail(.gone) }
        expire(after: PeerLimits.typing)
    }

    private func expire(after nanoseconds: UInt64) {
        if let deadline { checks.loop.cancel(deadline) }
        deadline = checks.loop.after(nanoseconds: nanoseconds) { [weak self] in self?.fail(.failed("there is no answer in time")) }
    }

    fileprivate func launch() {
        expire(after: PeerLimits.patience)
        do {
            // The process is counted until it is reaped.
            process = try DoorProcess(
                .administrator, loop: checks.loop, onMessage: { [weak self] answer, _ in self?.take(answer) },
                onShut: { [weak self] _ in self?.fail(.failed("the process ended")) },
                onEnd: { [checks, uid, weak self] _ in
                    self?.process = nil
                    self?.fail(.failed("the process ended"))
                    checks.ended(uid)
                })
            process?.send(first)
        } catch {
            checks.loop.after(nanoseconds: 0) { [self] in
                fail(.failed("the process cannot be started: \(error)"))
                checks.ended(uid)
            }
        }
    }

    /// Asks PAM about whoever has been identified.
    func verify(authenticates: Bool, _ whenJudged: @escaping Verdict) {
        self.whenJudged = whenJudged
        if let asker, asker.conversation != nil, authenticates {
            asker.isConversing = true
            expire(after: PeerLimits.typing)
        }
        process?.send(.check(directory: checks.directory, authenticates: authenticates), passing: asker?.conversation)
    }

    /// Nothing more is asked.
    func dismiss() {
        if let deadline { checks.loop.cancel(deadline) }
        deadline = nil
        asker?.whenGone = nil
        asker?.isConversing = false
        process?.shut()
        process?.killAll()
        process = nil
        checks.forget(self)
    }

    private func take(_ answer: AdministratorAnswer) {
        switch answer {
        case .identified(let uid, let user, let gids, let groups):
            guard let whenIdentified else { return fail(.failed("it said what it may not")) }
            self.whenIdentified = nil
            // Of whoever asks, the process says the names; the numbers are the kernel's.
            let (uid, gids) = asker.map { ($0.uid, $0.gids) } ?? (uid, Set(gids))
            whenIdentified(self, .success(Peer(uid: uid, user: user, gids: gids, groups: Set(groups))))
        case .verdict(let step, let code, let wantedConversation):
            guard let whenJudged, let step = PAMVerdict.Step(rawValue: step) else { return fail(.failed("it said what it may not")) }
            self.whenJudged = nil
            dismiss()
            whenJudged(.success((PAMVerdict(step: step, code: code), wantedConversation)))
        }
    }

    private func fail(_ trouble: Trouble) {
        let (identified, judged) = (whenIdentified, whenJudged)
        (whenIdentified, whenJudged) = (nil, nil)
        dismiss()
        identified?(self, .failure(trouble))
        judged?(.failure(trouble))
    }
}

/// Has people known by short-lived processes, so that control never waits for a directory service, PAM, or somebody who types.
final class PeerChecks {
    fileprivate let loop: EventLoop
    /// Where PAM's services are; nil: where they always are.
    fileprivate let directory: String?
    private var waiting: [PeerCheck] = []
    private var current: [PeerCheck] = []
    private var pauses = RefusalPauses()
    private var running: [UInt32: Int] = [:]

    init(loop: EventLoop, directory: String?) {
        self.loop = loop
        self.directory = directory
    }

    /// Identifies whoever asks. Then `verify` it, or `dismiss` the check.
    func identify(_ asker: Asker, _ whenDone: @escaping PeerCheck.Identified) {
        let gids = Array(asker.gids.sorted().prefix(AdministratorLimits.groups))
        begin(PeerCheck(self, uid: asker.uid, .identify(uid: asker.uid, gids: gids), asker, whenDone))
    }

    /// Finds somebody by his name, for whoever asks.
    func lookUp(_ name: [UInt8], for uid: UInt32, _ whenDone: @escaping PeerCheck.Identified) {
        begin(PeerCheck(self, uid: uid, .lookUp(name: name), nil, whenDone))
    }

    private func begin(_ check: PeerCheck) {
        current.append(check)
        waiting.append(check)
        serve()
    }

    /// Somebody has been refused: his next request finds out who he is after a while.
    func noteRefusal(_ uid: UInt32) {
        guard !PeerLimits.goesFirst(uid) else { return }
        loop.after(nanoseconds: pauses.note(uid, at: loop.now)) { [weak self] in self?.serve() }
    }

    private func mayStart(_ check: PeerCheck) -> Bool {
        guard PeerLimits.goesFirst(check.uid) || !pauses.holds(check.uid, running: running[check.uid, default: 0], at: loop.now), running[check.uid, default: 0] < PeerLimits.perUser else { return false }
        return running.values.reduce(0, +) < PeerLimits.processes || PeerLimits.goesFirst(check.uid)
    }

    private func serve() {
        while let index = waiting.firstIndex(where: mayStart) {
            let check = waiting.remove(at: index)
            running[check.uid, default: 0] += 1
            check.launch()
        }
    }

    fileprivate func ended(_ uid: UInt32) {
        let left = running[uid, default: 1] - 1
        running[uid] = left == 0 ? nil : left
        serve()
    }

    fileprivate func forget(_ check: PeerCheck) {
        waiting.removeAll { $0 === check }
        current.removeAll { $0 === check }
    }
}

/// How long users wait who have been refused, before it is found out again who they are.
struct RefusalPauses {
    private struct Pause {
        var until: UInt64
        var length: UInt64
        func isForgotten(at now: UInt64) -> Bool { now > until + PeerLimits.forgotten }
    }
    private var pauses: [UInt32: Pause] = [:]
    /// Who stands for those that are not told apart: nobody has this number.
    private static let others = UInt32.max

    var count: Int { pauses.count }

    /// One more refusal.
    /// - Returns: nanoseconds of the pause
    mutating func note(_ uid: UInt32, at now: UInt64) -> UInt64 {
        if pauses.count >= PeerLimits.refused { pauses = pauses.filter { !$0.value.isForgotten(at: now) } }
        let uid = pauses[uid] == nil && pauses.count >= PeerLimits.refused ? Self.others : uid
        var length = PeerLimits.pauses.lowerBound
        if let last = pauses[uid], !last.isForgotten(at: now) { length = min(last.length * 2, PeerLimits.pauses.upperBound) }
        pauses[uid] = Pause(until: now + length, length: length)
        return length
    }

    /// - Parameter running: processes of that user
    func holds(_ uid: UInt32, running: Int, at now: UInt64) -> Bool {
        guard let pause = pauses[uid] ?? pauses[Self.others], !pause.isForgotten(at: now) else { return false }
        return now < pause.until || running > 0
    }
}
