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
        let door = PlainDoor<OpenQuestion, OpenAnswer>(door)
        do throws(DoorError) {
            while let question = try door.next() {
                guard answer(question, over: door) else { return 1 }
            }
        } catch { return 1 }
        return 0
    }

    /// - Returns: whether it could be sent
    private static func answer(_ question: OpenQuestion, over door: PlainDoor<OpenQuestion, OpenAnswer>) -> Bool {
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
                return door.send(answer, passing: store.descriptor.rawValue)
            case .trusted(let path, let isPrivate, let limit):
                let file = try Files.openTrusted(String(decoding: path, as: UTF8.self), limit: Int(limit), isPrivate: isPrivate)
                return door.send(.trusted, passing: file.rawValue)
            }
        } catch {
            // Whoever has asked for a trusted file names it.
            return door.send(.failed((error as? FileError)?.reason ?? "\(error)"))
        }
    }
}

extension StoreConfinement {
    fileprivate init(_ places: StorePlacement) {
        self.init(directories: places.directories, mapperNames: places.mapperNames, deviceLinks: places.deviceLinks)
    }
}
