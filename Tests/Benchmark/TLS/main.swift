// How fast SecureConnection is over loopback, beside the same bytes in the clear:
//     PORTCULLIS_BENCHMARK=1 swift run -c release tls-benchmark
// MIB=512 sends that much in each case (2048); CLEAR=0 leaves the clear ones out.
import Bytes
import Crypto
import Foundation
import Reactor
import Synchronization
import TLS

func run(_ words: String) {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = words.split(separator: " ").map(String.init)
    process.standardError = FileHandle.nullDevice
    try! process.run()
    process.waitUntilExit()
    precondition(process.terminationStatus == 0, words)
}

/// A certificate that a client pins.
func contexts() throws -> (ServerContext, ClientContext) {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("tls-benchmark-\(getpid())").path
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: folder) }
    run("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout \(folder)/key -out \(folder)/certificate -subj /CN=benchmark")
    let certificate = [UInt8](FileManager.default.contents(atPath: "\(folder)/certificate")!)
    let key = try SigningKey(pem: Secret([UInt8](FileManager.default.contents(atPath: "\(folder)/key")!)))
    let server = try ServerContext(ServerMaterial(certificates: certificate), sign: { try? key.sign($1, by: $0) })
    return (server, try ClientContext(.pinnedCertificate(CertificateChain(pem: certificate).leaf.fingerprint)))
}

/// TCP over loopback.
func sockets() throws -> (Int32, Int32) {
    let listener = try Socket.listen(on: SocketAddress("127.0.0.1:0")!)
    let connecting = try Socket.connect(to: Socket.localAddress(listener.rawValue)!)
    precondition(Socket.wait(listener.rawValue, .readable, nanoseconds: 1_000_000_000))
    guard case .connection(let accepted, _) = try Socket.accept(listener.rawValue) else { fatalError("nobody connects") }
    try Socket.setNoDelay(accepted.rawValue)
    try Socket.setNoDelay(connecting.rawValue)
    return (accepted.release(), connecting.release())
}

func seconds() -> Double {
    let elapsed = ContinuousClock.now - started
    return Double(elapsed.components.seconds) + Double(elapsed.components.attoseconds) / 1e18
}
let started = ContinuousClock.now

/// Seconds of the processor that the process or this thread has used.
func cpu(_ clock: clockid_t = CLOCK_PROCESS_CPUTIME_ID) -> Double {
    var time = timespec()
    _ = unsafe clock_gettime(clock, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
}

struct Case {
    let name: String
    /// Bytes of a segment and how many are queued at a time.
    let segment: Int
    let count: Int
    /// Whether each has a header of 48 bytes in a segment of its own.
    var hasHeaders = false
}

/// Sends `total` bytes in the case's way from a thread to this one.
func measure(_ test: Case, total: Int, secure: (SecureConnection, SecureConnection)?, _ ends: (Int32, Int32)) throws {
    let pool = BufferPool(budget: 1 << 30)
    let buffer = pool.allocate(test.segment)!
    let used = Mutex(0.0)
    let sender = secure?.0
    let callsBefore = sender?.systemCalls.send ?? 0, copiedBefore = sender?.copied ?? 0
    let start = seconds(), cpuBefore = cpu()
    let thread = try WorkerThread(name: "sender") {
        let threadBefore = cpu(CLOCK_THREAD_CPUTIME_ID)
        var queue = OutputQueue(pool: pool)
        var queued = 0
        while queued < total || !queue.isEmpty {
            if queue.isEmpty {
                for _ in 0..<test.count {
                    if test.hasHeaders { queue.append(copying: [UInt8](repeating: 1, count: 48).span) }
                    queue.append(buffer, test.hasHeaders ? 0..<test.segment : -48..<test.segment)
                    queued += test.segment + 48
                }
            }
            let result = sender.map { $0.send(&queue) } ?? Socket.send(ends.0, &queue)
            if case .wouldBlock = result { _ = Socket.wait(ends.0, .writable, nanoseconds: 1_000_000_000) }
            if case .closed(let error) = result { fatalError("\(error)") }
        }
        used.withLock { $0 = cpu(CLOCK_THREAD_CPUTIME_ID) - threadBefore }
    }
    var room = [UInt8](repeating: 0, count: 256 << 10)
    var received = 0
    let each = (test.segment + 48) * test.count
    let expected = (total + each - 1) / each * each
    let receivesBefore = secure?.1.systemCalls.receive ?? 0
    while received < expected {
        switch secure.map({ $0.1.receive(into: &room, 0..<room.count) }) ?? Socket.receive(ends.1, into: &room, 0..<room.count) {
        case .received(let count): received += count
        case .wouldBlock: _ = Socket.wait(ends.1, .readable, nanoseconds: 1_000_000_000)
        case .closed(let error): fatalError("\(error as Any)")
        }
    }
    thread.join()
    let time = seconds() - start
    let sending = used.withLock { $0 }
    let receiving = cpu() - cpuBefore - sending
    func perGB(_ value: Double) -> String { String(format: "%.2f", value / Double(received) * 1e9) }
    var line = String(format: "%-34@ %6.0f MB/s", "\(test.name)\(secure == nil ? ", clear" : "")" as NSString, Double(received) / time / 1e6)
    line += "  CPU s/GB: send \(perGB(sending)) receive \(perGB(receiving))"
    if let secure {
        line += "  KiB per call: send \(received / Int(secure.0.systemCalls.send - callsBefore) / 1024)"
        line += " receive \(received / Int(secure.1.systemCalls.receive - receivesBefore) / 1024)"
        line += "  copied \((secure.0.copied - copiedBefore) * 100 / received) %"
    }
    print(line)
}

let (serverContext, clientContext) = try contexts()
let (one, other) = try sockets()
let server = SecureConnection(accepting: serverContext, descriptor: one)
let client = SecureConnection(connecting: clientContext, descriptor: other)
var isDone = false
while !isDone {
    _ = client.handshake()
    if case .done = server.handshake() { isDone = true }
}
let clear = try sockets()
let cases = [
    Case(name: "256 KiB and their header", segment: 256 << 10, count: 4), Case(name: "64 KiB and their header", segment: 64 << 10, count: 8),
    Case(name: "64 KiB, headers apart", segment: 64 << 10, count: 8, hasHeaders: true), Case(name: "8 KiB, headers apart", segment: 8 << 10, count: 32, hasHeaders: true),
    Case(name: "4 KiB and their header, 32", segment: 4 << 10, count: 32), Case(name: "4 KiB and their header, alone", segment: 4 << 10, count: 1),
]
let total = (Int(ProcessInfo.processInfo.environment["MIB"] ?? "") ?? 2048) << 20
for test in cases {
    if ProcessInfo.processInfo.environment["CLEAR"] != "0" { try measure(test, total: total, secure: nil, clear) }
    try measure(test, total: total, secure: (server, client), (one, other))
}
