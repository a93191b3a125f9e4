import ArgumentParser
import CLinux
import Reactor

/// `iscsi-load io`: reads or writes at random places, so many at once, and how long each takes.
struct InputOutput: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "io", abstract: "Read or write: rate and latencies.")

    @OptionGroup var place: Place
    @OptionGroup var target: Served
    @Flag(help: "Write instead of reading.")
    var write = false
    @Option(help: ArgumentHelp("Bytes of a request.", valueName: "bytes"))
    var size = 4096
    @Option(help: ArgumentHelp("Requests of a session at once.", valueName: "n"))
    var depth = 1
    @Option(help: ArgumentHelp("Sessions at once.", valueName: "n"))
    var sessions = 1
    @Option(help: ArgumentHelp("How long.", valueName: "seconds"))
    var seconds = 2.0
    @Option(help: ArgumentHelp("Ends after so many requests, if they are done before.", valueName: "n"))
    var requests: Int?
    @Option(help: ArgumentHelp("The logical unit.", valueName: "lun"))
    var lun: UInt8 = 1

    func validate() throws {
        guard (512...Client.segment).contains(size), size.isMultiple(of: 512) else { throw ValidationError("a request has 512 to \(Client.segment) bytes") }
        guard (1...128).contains(depth), sessions > 0, seconds > 0, requests ?? 1 > 0 else { throw ValidationError("too many or none") }
    }

    func run() throws {
        let client = try Client(place.address, place.words(), lun: lun)
        let work = Transfers(self, client)
        client.run { work.isDone }
        report(work.result)
    }
}

/// Whose processor time counts.
struct Served: ParsableArguments {
    @Option(help: ArgumentHelp("A process of the target's, whose processor time is told with that of its children; may be given again.", valueName: "pid"))
    var pid: [Int32] = []
}

/// What a run has found. Times in microseconds.
struct Outcome: Encodable {
    let requests: Int
    let seconds: Double
    /// Requests a second.
    let rate: Double
    let p50, p99, p999: Double
    /// The target's processor time for a request.
    let cpu: Double?

    init(_ latencies: [UInt32], nanoseconds: UInt64, cpu: Double?) {
        let sorted = latencies.sorted()
        func percentile(_ part: Double) -> Double { sorted.isEmpty ? 0 : Double(sorted[min(sorted.count - 1, Int(Double(sorted.count) * part))]) / 1e3 }
        requests = sorted.count
        seconds = Double(nanoseconds) / 1e9
        rate = Double(requests) / seconds
        (p50, p99, p999) = (percentile(0.5), percentile(0.99), percentile(0.999))
        self.cpu = cpu.map { $0 / Double(max(1, latencies.count)) * 1e6 }
    }
}

/// The sessions of one run. They begin together, when all are in.
final class Transfers: InitiatorOwner {
    private let options: InputOutput
    private var sessions: [Initiator] = []
    private var explored = 0
    private var isMeasuring = false
    private var begun: UInt64 = 0
    private var ended: UInt64 = 0
    private var cpuBefore: Double?
    private var left: Int
    private var underWay = 0
    private var places: UInt64 = 0
    private var random = Scatter()
    /// In nanoseconds.
    private var latencies: [UInt32] = []

    var isDone: Bool { isMeasuring && underWay == 0 }
    var result: Outcome {
        Outcome(latencies, nanoseconds: ended - begun, cpu: cpuBefore.map { Processes.cpuSeconds(of: options.target.pid) - $0 })
    }

    init(_ options: InputOutput, _ client: Client) {
        self.options = options
        left = options.requests ?? .max
        latencies.reserveCapacity(1 << 20)
        sessions = (0..<options.sessions).map { Initiator(client, isid: options.place.firstISID &+ UInt32($0), depth: options.depth, owner: self) }
    }

    func loggedIn(_ session: Initiator) { session.explore() }
    func loggedOut(_ session: Initiator) {}

    func answered(_ session: Initiator, _ tag: UInt32) {
        guard isMeasuring else {
            explored += 1
            return explored == sessions.count ? begin() : ()
        }
        ended = linux_monotonic_nanoseconds()
        latencies.append(UInt32(clamping: ended - session.begun(tag)))
        underWay -= 1
        next(session, tag)
    }

    private func begin() {
        guard let blocks = sessions.map(\.blocks).min(), let length = sessions.first?.blockLength, options.size.isMultiple(of: length) else {
            fail("requests are no whole blocks")
        }
        places = blocks / UInt64(options.size / length)
        guard places > 0 else { fail("the logical unit is shorter than a request") }
        if !options.target.pid.isEmpty { cpuBefore = Processes.cpuSeconds(of: options.target.pid) }
        begun = linux_monotonic_nanoseconds()
        ended = begun
        isMeasuring = true
        for session in sessions {
            for tag in 0..<UInt32(options.depth) { next(session, tag) }
            session.flush()
        }
    }

    private func next(_ session: Initiator, _ tag: UInt32) {
        guard left > 0, Double(ended - begun) < options.seconds * 1e9 else { return }
        left -= 1
        underWay += 1
        let block = random.next(below: places) * UInt64(options.size / session.blockLength)
        session.transfer(tag, writes: options.write, block: block, length: options.size)
    }
}

/// The same places in every run (xorshift64).
struct Scatter {
    private var state: UInt64 = 0x9e37_79b9_7f4a_7c15

    mutating func next(below bound: UInt64) -> UInt64 {
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        return state.multipliedFullWidth(by: bound).high
    }
}
