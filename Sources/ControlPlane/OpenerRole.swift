import Door
import Reactor
import Storage

/// The short-lived process that opens files: it may hang with a medium, control does not.
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
            // A path that is no UTF-8 becomes another one, which is not there.
            switch question {
            case .store(let path, let isSynchronous, let isDirect, let isReadOnly, let places):
                var flags: StoreFlags = []
                if isSynchronous { flags.insert(.sync) }
                if isDirect { flags.insert(.direct) }
                let store = try StoreOpener.open(String(decoding: path, as: UTF8.self), flags: flags, readOnly: isReadOnly, within: places.map(StoreConfinement.init))
                let description = StoreDescription(
                    kind: store.isBlockDevice ? .blockDevice : .file, length: store.length, isSynchronous: isSynchronous, isDirect: isDirect,
                    isReadOnly: isReadOnly)
                let answer = OpenAnswer.opened(description, physicalBlockLength: UInt32(clamping: store.physicalSector))
                return send(answer, over: door, passing: [store.descriptor.rawValue])
            case .trusted(let path, let isPrivate, let limit):
                let file = try Files.openTrusted(String(decoding: path, as: UTF8.self), limit: Int(limit), isPrivate: isPrivate)
                return send(.trusted, over: door, passing: [file.rawValue])
            }
        } catch {
            // Whoever has asked for a trusted file names it.
            return send(.failed((error as? FileError)?.reason ?? "\(error)"), over: door, passing: [])
        }
    }

    private static func send(_ answer: OpenAnswer, over door: borrowing FileDescriptor, passing descriptors: [Int32]) -> Bool {
        if case .done = Socket.sendMessage(door.rawValue, answer.encoded(), descriptors: descriptors) { true } else { false }
    }
}

extension StoreConfinement {
    fileprivate init(_ places: StorePlacement) {
        self.init(directories: places.directories, mapperNames: places.mapperNames, deviceLinks: places.deviceLinks)
    }
}
