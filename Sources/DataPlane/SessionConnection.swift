import Bytes
import Door
import ISCSI
import Medium
import Reactor
import SCSI
import Storage
import TLS
import Target

/// A connection in full-feature phase: carries bytes between its socket and its session, and the session's actions out.
final class SessionConnection: EventHandler, TurnHandler {
    /// Bytes of operations that are done at once before the others of the reactor have their turn: some 100 µs, which another's small
    /// request can wait. Who is alone there does more: fewer and larger sends cost both ends less. What is received in a turn is bounded
    /// by one receive.
    private static let bytesPerTurn = (alone: 1 << 20, among: 256 << 10)
    /// Bytes received as input behind a large write's data: the next header, and not much that has to be copied.
    private static let betweenBulks = 8 << 10
    /// How long a connection that is to be closed may take to send what is left, in nanoseconds.
    private static let lastWords: UInt64 = 5_000_000_000

    private let beginning: SessionBeginning
    private unowned let reactor: SessionReactor
    private let session: Session
    /// nil once it is closed.
    private var connection: ByteStream?
    private var interest: Readiness = []
    /// Received, but not yet taken by the session, which waits for memory or for its answers to leave.
    private var unread: Unread?
    private var closesAfterOutput = false
    /// The kernel takes no more output for now; it tells when it does.
    private var isBlocked = false
    /// Whether it goes on at the end of the turn.
    private var isInLine = false
    /// Bytes of operations that may still be done at once in this turn.
    private var allowance = SessionConnection.bytesPerTurn.among
    private var endReason: EndReason?

    private var now: UInt64 { reactor.loop.now }
    private var nexus: NexusID { beginning.nexus }
    var tsih: UInt16 { beginning.grant.tsih }

    /// nil if its nexus has a session already.
    init?(_ beginning: SessionBeginning, reactor: SessionReactor) {
        let (mailbox, nexus) = (reactor.mailbox, beginning.nexus)
        let session = Session(
            beginning.start, target: beginning.target, data: reactor.shared.data, answers: reactor.shared.answers, now: reactor.loop.now
        ) { mailbox.post(.notification(nexus, $0)) }
        guard let session else { return nil }
        self.beginning = beginning
        self.reactor = reactor
        self.session = session
        connection = beginning.connection
    }

    /// Sends the final Login Response and begins to serve.
    func begin() {
        guard let connection else { return }
        try? Socket.spreadKeepAlive(connection.number, tsih)
        session.begin(with: beginning.grant.outcome.finalResponseBytes(tsih: beginning.grant.tsih))
        interest = .readable
        do {
            try reactor.loop.add(connection.number, interest, self)
        } catch {
            reactor.shared.log.error("a connection cannot be watched: \(error)")
            close(.connectionLost)
        }
        // What the initiator has sent behind its last Login Request may have left the socket with that.
        if connection.holdsInput { receive() }
        settle()
    }

    /// Leaves the target instead of beginning; the connection stays open.
    func abandon() { session.end(.administrator) }

    // MARK: What happens

    func ready(_ events: Readiness) {
        reactor.work(for: tsih) {
            if !isInLine { beginTurn() }
            take(events)
        }
    }

    private func take(_ events: Readiness) {
        if events.contains(.writable) {
            isBlocked = false
            send()
        }
        if !events.isDisjoint(with: [.readable, .hangup, .error, .peerClosed]) { receive() }
        // Nothing can be sent any more, and what has come is not wanted now: without this the loop would be told for ever.
        if !events.isDisjoint(with: [.hangup, .error]), !readsMore { close(.connectionLost) }
        settle()
    }

    /// The others have had their turn.
    func endOfTurn() {
        isInLine = false
        reactor.work(for: tsih) {
            beginTurn()
            if connection?.holdsInput == true { take(.readable) } else { settle() }
        }
    }

    private func beginTurn() { allowance = reactor.servesOne ? Self.bytesPerTurn.alone : Self.bytesPerTurn.among }

    private func standInLine() {
        guard !isInLine else { return }
        isInLine = true
        reactor.loop.whenTurnEnds(self)
    }

    /// What a portal with TLS accepts has been replaced.
    func replaced(_ portal: UInt32, _ context: ServerContext) {
        guard let connection, connection.portal == portal, !connection.isStillTrusted(by: context) else { return }
        close(.distrusted)
        settle()
    }

    private var readsMore: Bool { session.wantsInput && unread == nil && !closesAfterOutput }

    /// Its answer leaves at the end of the turn, with those of others that are over by then.
    func completed(_ ticket: Ticket, _ outcome: Outcome) {
        session.completed(ticket, outcome: outcome, now: now)
        standInLine()
    }

    func finished(_ writes: ArraySlice<GatheredWrites.Finished>) {
        for write in writes { session.completed(write.ticket, outcome: write.outcome, now: now) }
        settle()
    }

    func kept(_ ticket: Ticket) {
        session.kept(ticket, now: now)
        settle()
    }

    func notified(_ notification: Notification) {
        session.notified(notification, now: now)
        settle()
    }

    func answer(_ request: TextRequest, _ targets: [DiscoveredTarget]) {
        session.answer(request, targets)
        settle()
    }

    func memoryAvailable() {
        session.memoryAvailable(isReport: true, now: now)
        settle()
    }

    func tick() {
        session.tick(now: now)
        settle()
    }

    /// What it has done so far.
    var survey: [SurveyEntry] {
        let connection = SurveyEntry.connection(tsih: tsih, cid: beginning.grant.outcome.identity.cid, session.traffic)
        return [connection] + session.statistics.filter { $0.statistics != IOStatistics() }.map { number, statistics in
            .nexus(tsih: tsih, lun: UInt16(number), NexusActivity(statistics))
        }
    }

    // MARK: Bytes

    /// Once in a turn; the loop tells of what is left.
    private func receive() {
        guard let connection, session.wantsInput, unread == nil else { return }
        guard reactor.canPutAside else { return receiveWhatIsTaken(connection) }
        // Where large writes follow each other, a header comes as input with little behind it, and the data go to their place.
        guard session.isInBulk else { return _ = take(connection.receive(into: &reactor.input, 0..<reactor.input.count)) }
        let most = 0..<Self.betweenBulks
        if session.landing == nil { guard take(connection.receive(into: &reactor.input, most)) == most.count else { return } }
        guard connection === self.connection, let (result, room) = land(connection, then: most) else { return }
        if case .received = result {
            // While the data are warm, and before what follows needs memory of its own.
            giveNothing()
            carryOut()
            guard connection === self.connection else { return }
        }
        take(result, past: room)
    }

    /// Receives data to where they belong, and what comes behind them into `reactor.input`. Nobody holds the buffer here any more when it is done.
    /// - Returns: how many bytes there was room for where they belong; nil: none are due
    private func land(_ connection: ByteStream, then most: Range<Int>) -> (ReceiveResult, room: Int)? {
        guard let landing = session.landing else { return nil }
        let result = connection.receive(into: landing.buffer, landing.range, then: &reactor.input, most)
        if case .received(let count) = result { session.landed(min(count, landing.range.count), of: landing, now: now) }
        return (result, landing.range.count)
    }

    /// Gives the session what `reactor.input` has received, but for the bytes that did not go there.
    /// - Returns: how many bytes were received
    @discardableResult
    private func take(_ result: ReceiveResult, past landed: Int = 0) -> Int {
        switch result {
        case .received(let all):
            let count = max(0, all - landed)
            let used = give(count)
            if used < count { unread = reactor.putAside(used..<count) }
            carryOut()
            return all
        case .wouldBlock: break
        case .closed: close(.connectionLost)
        }
        return 0
    }

    /// Without room for what the session may leave, that stays in the socket: nothing is received but what is taken.
    private func receiveWhatIsTaken(_ connection: ByteStream) {
        switch connection.peek(into: &reactor.input, 0..<reactor.input.count) {
        case .received(let count):
            discard(give(count), connection)
            carryOut()
        case .wouldBlock: break
        case .closed: close(.connectionLost)
        }
    }

    /// Gives the session the first bytes of `reactor.input`; how many it has taken.
    private func give(_ count: Int) -> Int {
        let input = reactor.input
        return session.receive(input.span.extracting(0..<count), now: now)
    }

    /// Has the session go on with what it has.
    private func giveNothing() { _ = session.receive(Span(), now: now) }

    /// Receives again what has been looked at.
    private func discard(_ count: Int, _ connection: ByteStream) {
        var left = count
        while left > 0, case .received(let more) = connection.receive(into: &reactor.input, 0..<left) { left -= more }
    }

    /// Gives the session what it has not taken yet, if it takes it now.
    /// - Returns: whether it has taken any
    private func feedUnread() -> Bool {
        guard session.wantsInput, connection != nil else { return false }
        guard let rest = unread else {
            // What it has in hand may go on without more.
            giveNothing()
            return false
        }
        let used = rest.buffer.withBytes(rest.range) { session.receive($0, now: now) }
        // An idle session keeps nothing of it.
        unread = used < rest.range.count ? Unread(buffer: rest.buffer, range: rest.range.dropFirst(used)) : nil
        return used > 0
    }

    private func send() {
        guard let connection, !isBlocked, session.unsent > 0 else { return }
        var result = SendResult.done
        session.send(now: now) { result = connection.send(&$0) }
        switch result {
        case .done: break
        case .wouldBlock: isBlocked = true
        case .closed: close(.connectionLost)
        }
    }

    /// Carries out what the session wants done, sends what there is to send, and goes on as long as that makes it want more.
    private func settle() {
        var again = true
        while again {
            carryOut()
            send()
            again = !closesAfterOutput && feedUnread()
        }
        // Epoll does not tell of input that has left the socket.
        if let connection, readsMore, connection.holdsInput { standInLine() }
        carryOut()
        if closesAfterOutput, session.unsent == 0 { close(endReason ?? .connectionLost) }
        if let endReason, connection == nil, session.isQuiet { return reactor.forget(beginning, endReason) }
        watch()
    }

    private func watch() {
        guard let connection else { return }
        var wanted: Readiness = []
        if session.wantsInput, !closesAfterOutput { wanted.insert(.readable) }
        if session.unsent > 0 { wanted.insert(.writable) }
        guard wanted != interest else { return }
        interest = wanted
        do { try reactor.loop.modify(connection.number, wanted) } catch { close(.connectionLost) }
    }

    private func close(_ reason: EndReason) {
        guard let connection else { return }
        session.end(reason)
        endReason = endReason ?? reason
        reactor.loop.remove(connection.number)
        if let failure = connection.secure?.failure, failure.cause != .closed { reactor.shared.log.notice("session \(tsih) ends: \(failure)") }
        self.connection = nil
        connection.close()
        unread = nil
    }

    // MARK: Actions

    private func carryOut() {
        guard allowance > 0 else { return standInLine() }
        let reactor = reactor, gathered = reactor.gathered
        while true {
            guard let action = session.nextAction() else {
                guard let gathered, !gathered.isEmpty else { return }
                performGathered()
                continue
            }
            switch action {
            case .perform(let ticket):
                if let gathered, gathered.isFull { performGathered() }
                perform(ticket, gathered, now: reactor.loop.now)
            case .keep(let ticket, let unit, let revision):
                reactor.report(.keep(reactor: reactor.number, nexus, ticket, unit, revision: revision))
            case .askSendTargets(let request):
                reactor.report(.sendTargets(reactor: reactor.number, nexus, request))
            case .waitForMemory:
                let (mailbox, nexus) = (reactor.mailbox, nexus)
                reactor.shared.data.whenReleased { mailbox.post(.memoryReleased(nexus)) }
                session.memoryAvailable(isReport: false, now: now)
            case .close(let reason, let afterOutput):
                endReason = endReason ?? reason
                if afterOutput, connection != nil {
                    closesAfterOutput = true
                    reactor.loop.after(nanoseconds: Self.lastWords) { [weak self] in
                        self?.close(reason)
                        self?.settle()
                    }
                } else {
                    close(reason)
                }
            }
            if allowance <= 0 {
                performGathered()
                return standInLine()
            }
        }
    }

    private func perform(_ ticket: Ticket, _ gathered: GatheredReads?, now: UInt64) {
        session.perform(ticket, now: now) { operation, buffer, hold in
            guard let hold = hold as? Hold<ServedStore> else { return .failed(.unsupported) }
            if let gathered, gathered.take(ticket, operation, buffer, hold) {
                allowance -= buffer?.capacity ?? 0
                return nil
            }
            if let outcome = hold.withMedium({ $0.performAtOnce(operation, buffer: buffer) }) {
                allowance -= buffer?.capacity ?? 0
                return outcome
            }
            if reactor.writes.take(token(ticket), operation, buffer, hold, now: now) {
                allowance -= buffer?.capacity ?? 0
                return nil
            }
            return submit(ticket, operation, buffer, hold)
        }
    }

    /// Has the gathered reads done, those that would have to wait by a thread that may.
    private func performGathered() {
        let now = now
        reactor.gathered?.perform { ticket, read, hold in
            if read.isDone {
                session.completed(ticket, outcome: .done, now: now)
            } else if let outcome = submit(ticket, .read(read.extent), read.buffer, hold) {
                session.completed(ticket, outcome: outcome, now: now)
            }
        }
    }

    /// Gives an operation to a thread that may wait.
    /// - Returns: how it ended, where none has room for it
    private func submit(_ ticket: Ticket, _ operation: Operation, _ buffer: Buffer?, _ hold: Hold<ServedStore>) -> Outcome? {
        reactor.shared.pool.submit(operation, buffer: buffer, on: hold.medium.queue, token: token(ticket)) ? nil : .failed(.busy)
    }

    private func token(_ ticket: Ticket) -> StorageTicket { StorageTicket(mailbox: reactor.mailbox, nexus: nexus, ticket: ticket) }
}

extension NexusActivity {
    init(_ statistics: IOStatistics) {
        func amount(_ amount: IOStatistics.Amount) -> Amount { Amount(bytes: amount.bytes, commands: amount.commands) }
        self.init()
        readSubmitted = amount(statistics.readSubmitted)
        readDone = amount(statistics.readDone)
        writeSubmitted = amount(statistics.writeSubmitted)
        writeDone = amount(statistics.writeDone)
        errors = statistics.errors
    }
}
