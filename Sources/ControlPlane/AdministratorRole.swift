import Door
import Management
import PAM
import Reactor

/// The short-lived process that knows people: it asks the name service who somebody is, and PAM whether he may go on. Both run code that is not
/// ours, and may hang, crash, or say more than anybody wants to hear; what is typed is seen here alone.
public enum AdministratorRole {
    /// Bytes of memory and seconds of a processor for one transaction.
    static let memory: UInt64 = 512 << 20
    static let seconds: UInt64 = 10
    static let service = "tgtd"

    /// Serves one transaction.
    /// - Returns: the exit code
    public static func run(door: consuming FileDescriptor, parent: Int32) -> Int32 {
        do {
            try Sandbox.tie(toParent: parent)
            try Sandbox.bound(memory: memory, seconds: seconds)
            try Sandbox.keepDescendants()
        } catch {
            return 1
        }
        var user: [UInt8]?
        while Socket.wait(door.rawValue, .readable, nanoseconds: .max),
            case .message(let bytes, var descriptors) = Socket.receiveMessage(door.rawValue, limit: DoorLimits.message) {
            guard let question = try? AdministratorQuestion(bytes, descriptors: descriptors.count) else { return 1 }
            switch question {
            case .identify(let uid, let gids):
                user = NameService.name(of: uid)
                guard send(identified(uid, user, gids), over: door) else { return 1 }
            case .lookUp(let name):
                let answer = found(name).map { identified($0.uid, $0.name, $0.gids) } ?? .identified(uid: .max, user: nil, gids: [], groups: [])
                guard send(answer, over: door) else { return 1 }
            case .check(let directory, let authenticates):
                guard let user, let name = String(validating: user, as: UTF8.self) else { return 1 }
                let dialogue = Dialogue(descriptors.take())
                let verdict = PAM.run(service: service, directory: directory, user: name, authenticates: authenticates, dialogue: dialogue)
                // It lives until its door is shut: what has been said is to be heard before its end is.
                guard send(.verdict(step: verdict.step.rawValue, code: verdict.code, wantedConversation: dialogue.wasMissing), over: door) else { return 1 }
            }
        }
        return 0
    }

    /// A name, or else a number.
    private static func found(_ name: [UInt8]) -> (uid: UInt32, name: [UInt8], gids: [UInt32])? {
        guard let text = String(validating: name, as: UTF8.self) else { return nil }
        if let user = NameService.user(named: text) { return user }
        guard let known = UInt32(text).flatMap({ NameService.name(of: $0) }), let name = String(validating: known, as: UTF8.self) else { return nil }
        return NameService.user(named: name)
    }

    private static func identified(_ uid: UInt32, _ user: [UInt8]?, _ gids: [UInt32]) -> AdministratorAnswer {
        let gids = Array(gids.prefix(AdministratorLimits.groups))
        var room = AdministratorLimits.names
        var groups: [[UInt8]] = []
        for gid in gids {
            guard let name = NameService.name(ofGroup: gid), name.count <= AdministratorLimits.name else { continue }
            room -= name.count
            guard room >= 0 else { break }
            groups.append(name)
        }
        return .identified(uid: uid, user: user.flatMap { $0.count <= AdministratorLimits.name ? $0 : nil }, gids: gids, groups: groups)
    }

    private static func send(_ answer: AdministratorAnswer, over door: borrowing FileDescriptor) -> Bool {
        if case .done = Socket.sendMessage(door.rawValue, answer.encoded()) { true } else { false }
    }
}

/// PAM's conversation with whoever is at the other end of the management connection.
private final class Dialogue: PAMDialogue {
    private let connection: FileDescriptor?
    private var left = NativeMessage.most
    /// Somebody should have been asked, and nobody is there.
    private(set) var wasMissing = false

    init(_ connection: consuming FileDescriptor?) { self.connection = consume connection }

    func show(_ text: [UInt8], isError: Bool) -> Bool {
        // Who does not listen need not know.
        guard connection.rawValue != nil else { return true }
        return send(NativeMessage(isError ? .error : .info, text))
    }

    func ask(_ question: [UInt8], isSecret: Bool, answer: inout [UInt8]) -> Bool {
        guard let number = connection.rawValue else {
            wasMissing = true
            return false
        }
        guard send(NativeMessage(isSecret ? .secret : .question, question)) else { return false }
        var header: [UInt8] = []
        guard receive(number, NativeMessage.answerHeader, into: &header), let length = NativeMessage.answerLength(header) else { return false }
        return receive(number, length, into: &answer)
    }

    private func send(_ message: NativeMessage) -> Bool {
        guard let number = connection.rawValue, left > 0 else { return false }
        left -= 1
        let bytes = message.encoded()
        var sent = 0
        while true {
            switch Socket.send(number, bytes, from: &sent) {
            case .done: return true
            case .wouldBlock: _ = Socket.wait(number, .writable, nanoseconds: .max)
            case .closed: return false
            }
        }
    }

    /// Exactly so many bytes, where they are to stay.
    private func receive(_ number: Int32, _ count: Int, into bytes: inout [UInt8]) -> Bool {
        bytes.append(contentsOf: repeatElement(0, count: count))
        var done = 0
        while done < count {
            switch Socket.receive(number, into: &bytes, done..<count) {
            case .received(let more): done += more
            case .wouldBlock: _ = Socket.wait(number, .readable, nanoseconds: .max)
            case .closed: return false
            }
        }
        return true
    }
}
