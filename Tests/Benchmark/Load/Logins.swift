import ArgumentParser
import CLinux
import Reactor

/// `iscsi-load logins`: connects, logs in, logs out, again and again.
struct Logins: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Log in and out: rate and latencies of the whole.")

    @OptionGroup var place: Place
    @OptionGroup var target: Served
    @Option(help: ArgumentHelp("Connections at once.", valueName: "n"))
    var parallel = 8
    @Option(help: ArgumentHelp("How long.", valueName: "seconds"))
    var seconds = 2.0
    @Option(help: ArgumentHelp("Ends after so many, if they are done before.", valueName: "n"))
    var requests: Int?

    func validate() throws {
        guard (1...1024).contains(parallel), seconds > 0, requests ?? 1 > 0 else { throw ValidationError("too many or none") }
    }

    func run() throws {
        let client = try Client(place.address, place.words())
        let cpuBefore = target.pid.isEmpty ? nil : Processes.cpuSeconds(of: target.pid)
        let visits = Visits(self, client)
        client.run { visits.isDone }
        report(Outcome(visits.latencies, nanoseconds: visits.ended - visits.begun, cpu: cpuBefore.map { Processes.cpuSeconds(of: target.pid) - $0 }))
    }
}

/// Sessions that only come and go.
final class Visits: InitiatorOwner {
    private let options: Logins
    private let client: Client
    let begun = linux_monotonic_nanoseconds()
    private(set) var ended = linux_monotonic_nanoseconds()
    private(set) var latencies: [UInt32] = []
    private var underWay: [ObjectIdentifier: (session: Initiator, begun: UInt64)] = [:]
    private var count: UInt32 = 0

    var isDone: Bool { underWay.isEmpty }

    init(_ options: Logins, _ client: Client) {
        self.options = options
        self.client = client
        for _ in 0..<options.parallel { next() }
    }

    func loggedIn(_ session: Initiator) { session.logout() }
    func answered(_ session: Initiator, _ tag: UInt32) {}

    func loggedOut(_ session: Initiator) {
        guard let (_, start) = underWay.removeValue(forKey: ObjectIdentifier(session)) else { preconditionFailure("it was under way") }
        ended = linux_monotonic_nanoseconds()
        latencies.append(UInt32(clamping: ended - start))
        next()
    }

    /// Each has an ISID of its own, so that none takes the place of another.
    private func next() {
        guard Double(ended - begun) < options.seconds * 1e9, Int(count) < options.requests ?? .max else { return }
        let session = Initiator(client, isid: options.place.firstISID &+ count, owner: self)
        count += 1
        underWay[ObjectIdentifier(session)] = (session, linux_monotonic_nanoseconds())
    }
}
