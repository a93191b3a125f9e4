import ArgumentParser
import CLinux
import Reactor

/// `iscsi-load idle`: logs in so many times and stays, until its standard input ends.
struct Idle: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Hold idle sessions until standard input ends.")

    @OptionGroup var place: Place
    @Option(help: ArgumentHelp("How many.", valueName: "n"))
    var sessions = 1000
    @Option(help: ArgumentHelp("Logins at once.", valueName: "n"))
    var parallel = 32

    func validate() throws {
        guard (1...100_000).contains(sessions), parallel > 0 else { throw ValidationError("too many or none") }
    }

    func run() throws {
        let client = try Client(place.address, place.words())
        let crowd = Crowd(self, client)
        client.run { crowd.areIn }
        report(crowd.result)
        let input = InputEnd(client.loop)
        client.run { input.hasCome }
    }
}

/// Sessions that stay.
final class Crowd: InitiatorOwner {
    struct Result: Encodable {
        let sessions: Int
        /// Until all were in.
        let seconds: Double
    }

    private let options: Idle
    private let client: Client
    private let begun = linux_monotonic_nanoseconds()
    private var ended: UInt64 = 0
    private var sessions: [Initiator] = []
    private var loggedIn = 0

    var areIn: Bool { loggedIn == options.sessions }
    var result: Result { Result(sessions: loggedIn, seconds: Double(ended - begun) / 1e9) }

    init(_ options: Idle, _ client: Client) {
        self.options = options
        self.client = client
        for _ in 0..<min(options.parallel, options.sessions) { next() }
    }

    func loggedIn(_ session: Initiator) {
        loggedIn += 1
        ended = linux_monotonic_nanoseconds()
        next()
    }
    func answered(_ session: Initiator, _ tag: UInt32) {}
    func loggedOut(_ session: Initiator) {}

    private func next() {
        guard sessions.count < options.sessions else { return }
        sessions.append(Initiator(client, isid: options.place.firstISID &+ UInt32(sessions.count), owner: self))
    }
}

/// The end of standard input.
final class InputEnd: EventHandler {
    private(set) var hasCome = false
    private let loop: EventLoop

    /// What cannot be watched, as /dev/null, ends at once.
    init(_ loop: EventLoop) {
        self.loop = loop
        do { try loop.add(0, .readable, self) } catch { hasCome = true }
    }

    func ready(_ events: Readiness) {
        hasCome = true
        loop.remove(0)
    }
}
