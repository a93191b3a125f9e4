import Door
import Reactor
import Storage

/// The short-lived process that opens backing stores: it may hang with a medium, control does not.
public enum OpenerRole {
    /// Answers one question after the other, until its door is shut.
    /// - Returns: the exit code
    public static func run(door: consuming FileDescriptor, parent: Int32) -> Int32 {
        do {
            try Sandbox.tie(toParent: parent)
        } catch {
            return 1
        }
        while Socket.wait(door.rawValue, .readable, nanoseconds: .max),
            case .message(let bytes, let descriptors) = Socket.receiveMessage(door.rawValue, limit: DoorLimits.message) {
            guard let question = try? OpenQuestion(bytes, descriptors: descriptors.count), answer(question, over: door) else { return 1 }
        }
        return 0
    }

    /// - Returns: whether it could be sent
    private static func answer(_ question: OpenQuestion, over door: borrowing FileDescriptor) -> Bool {
        do {
            let store = try open(question)
            let description = StoreDescription(
                kind: store.isBlockDevice ? .blockDevice : .file, length: store.length, isSynchronous: question.isSynchronous,
                isDirect: question.isDirect, isReadOnly: question.isReadOnly)
            let answer = OpenAnswer.opened(description, physicalBlockLength: UInt32(clamping: store.physicalSector))
            return send(answer, over: door, passing: [store.descriptor.rawValue])
        } catch {
            return send(.failed(error.description), over: door, passing: [])
        }
    }

    private static func open(_ question: OpenQuestion) throws(StoreError) -> OpenedStore {
        // A path that is no UTF-8 becomes another one, which is not there.
        let path = String(decoding: question.path, as: UTF8.self)
        var flags: StoreFlags = []
        if question.isSynchronous { flags.insert(.sync) }
        if question.isDirect { flags.insert(.direct) }
        return try StoreOpener.open(path, flags: flags, readOnly: question.isReadOnly)
    }

    private static func send(_ answer: OpenAnswer, over door: borrowing FileDescriptor, passing descriptors: [Int32]) -> Bool {
        if case .done = Socket.sendMessage(door.rawValue, answer.encoded(), descriptors: descriptors) { true } else { false }
    }
}
