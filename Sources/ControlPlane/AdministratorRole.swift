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
        let door = PlainDoor<AdministratorQuestion, AdministratorAnswer>(door)
        var user: [UInt8]?
        do throws(DoorError) {
            while let question = try door.next() {
                guard let answer = answer(question, of: &user, dialogue: door.descriptors.take()), door.send(answer) else { return 1 }
            }
        } catch { return 1 }
        return 0
    }

    /// - Parameters:
    ///   - user: who it is about, from one question to the next
    ///   - connection: to whoever can be asked
    /// - Returns: nil for what cannot be asked now
    private static func answer(_ question: AdministratorQuestion, of user: inout [UInt8]?, dialogue connection: consuming FileDescriptor?) -> AdministratorAnswer? {
        switch question {
        case .identify(let uid, let gids):
            user = NameService.name(of: uid)
            return identified(uid, user, gids)
        case .lookUp(let name): return found(name).map { identified($0.uid, $0.name, $0.gids) } ?? .identified(uid: .max, user: nil, gids: [], groups: [])
        case .check(let directory, let authenticates):
            guard let user, let name = String(validating: user, as: UTF8.self) else { return nil }
            let dialogue = Dialogue(connection)
            let verdict = PAM.run(service: service, directory: directory, user: name, authenticates: authenticates, dialogue: dialogue)
            // It lives until its door is shut: what has been said is to be heard before its end is.
            return .verdict(step: verdict.step.rawValue, code: verdict.code, wantedConversation: dialogue.wasMissing)
        }
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
