import Crypto
import Reactor

/// A file that the settings name.
struct NamedFile: Hashable, Sendable {
    let path: String
    /// Nobody else may be able to read it.
    let isPrivate: Bool

    /// Certificates with what leads to their authority, and an authority's with its siblings.
    static let mostBytes = 1 << 20

    /// Opens it, for whoever has the right to.
    func open() throws(FileError) -> FileDescriptor { try Files.openTrusted(path, limit: Self.mostBytes, isPrivate: isPrivate) }

    /// What it holds, once it is open.
    func contents(of opened: borrowing FileDescriptor) throws(FileError) -> Secret {
        do throws(SystemError) {
            return try Secret.filled(room: Self.mostBytes) { room throws(SystemError) in try Files.read(opened.rawValue, into: &room) }
        } catch {
            throw FileError(path, SystemError.text(of: error.code))
        }
    }
}

/// The process that keeps the rights tgt-connect was started with: it opens the files that the settings name, as often as it is asked to,
/// for the one that meets the network, which may open none.
///
/// What they are it was told when it was started; all that it is told afterwards is a file's number. It does not read them.
public enum FileKeeper {
    /// As the first word of the command line it makes a process this one. No administrator says it.
    public static let word = "--keep-files"
    /// Before a file's name on the command line.
    private static let (publicMark, privateMark) = ("public:", "private:")
    /// The keeper's end of what connects both.
    private static let door: Int32 = 3

    /// Starts one that knows `files`.
    /// - Returns: our end of what connects both; when it is closed, the keeper ends
    static func start(_ files: [NamedFile]) throws(SystemError) -> FileDescriptor {
        var theirs: FileDescriptor?
        let ours = try Socket.messagePair().split(&theirs)
        let names = files.map { ($0.isPrivate ? privateMark : publicMark) + $0.path }
        _ = try ChildProcess(arguments: ["tgt-connect", word] + names, environment: ["SWIFT_BACKTRACE=enable=no"], descriptors: [theirs.rawValue ?? -1])
        return ours
    }

    /// - Parameter words: the command line behind `word`
    /// - Returns: the exit code
    public static func run(_ words: some Sequence<String>) -> Int32 {
        // A terminal and a service manager send these to both processes; this one ends when the other does.
        Signal.ignore([Signal.interrupt, Signal.terminate, Signal.hangup])
        var files: [NamedFile] = []
        for word in words {
            guard let mark = [publicMark, privateMark].first(where: word.hasPrefix) else { return 22 }
            files.append(NamedFile(path: String(word.dropFirst(mark.count)), isPrivate: mark == privateMark))
        }
        return serve(files, over: FileDescriptor(owning: door))
    }

    private static func serve(_ files: [NamedFile], over door: consuming FileDescriptor) -> Int32 {
        while Socket.wait(door.rawValue, .readable, nanoseconds: .max), case .message(let question, _) = Socket.receiveMessage(door.rawValue, limit: 2, descriptors: 0) {
            guard question.count == 2, files.indices.contains(Int(question[0]) << 8 | Int(question[1])) else { return 1 }
            guard case .done = answer(files[Int(question[0]) << 8 | Int(question[1])], over: door) else { return 1 }
        }
        return 0
    }

    /// The file itself, behind a word that says nothing; or why there is none.
    private static func answer(_ file: NamedFile, over door: borrowing FileDescriptor) -> SendResult {
        do throws(FileError) {
            let opened = try file.open()
            return Socket.sendMessage(door.rawValue, [0], descriptors: [opened.rawValue])
        } catch {
            return Socket.sendMessage(door.rawValue, Array(error.reason.utf8))
        }
    }

    /// What asks for a file.
    static func question(_ number: Int) -> [UInt8] { [UInt8(number >> 8), UInt8(number & 0xff)] }
}

/// Has the keeper open the files, one after the other, and reads them.
final class KeptFiles: EventHandler {
    typealias Contents = [NamedFile: Secret]

    private let loop: EventLoop
    private let files: [NamedFile]
    private let whenRead: (Result<Contents, FileError>) -> Void
    /// nil: the keeper is gone.
    private var door: FileDescriptor?
    /// Those that are being read, as far as they have been; nil: none are.
    private var contents: Contents?
    /// They have been asked for once more since.
    private var isStale = false

    /// - Parameter whenRead: called, from the loop, when all are read that `read` has asked for, or one could not be
    init(_ loop: EventLoop, _ files: [NamedFile], whenRead: @escaping (Result<Contents, FileError>) -> Void) throws(SystemError) {
        self.loop = loop
        self.files = files
        self.whenRead = whenRead
        let door = try FileKeeper.start(files)
        try loop.add(door.rawValue, .readable, self)
        self.door = consume door
    }

    /// Reads all of them anew.
    func read() {
        isStale = contents != nil
        guard contents == nil else { return }
        contents = [:]
        askForNext()
    }

    private func askForNext() {
        guard let contents else { return }
        guard contents.count < files.count else { return finish(.success(contents)) }
        guard let number = door.rawValue, case .done = Socket.sendMessage(number, FileKeeper.question(contents.count)) else { return lose() }
    }

    func ready(_ events: Readiness) {
        guard let number = door.rawValue else { return }
        switch Socket.receiveMessage(number, descriptors: 1) {
        case .wouldBlock: break
        case .closed: lose()
        case .message(let answer, var descriptors): take(answer, descriptors.take())
        }
    }

    private func take(_ answer: [UInt8], _ descriptor: consuming FileDescriptor?) {
        // Nobody asked.
        guard let number = contents?.count, files.indices.contains(number) else { return lose() }
        let file = files[number]
        guard let descriptor else { return finish(.failure(FileError(file.path, String(decoding: answer, as: UTF8.self)))) }
        do throws(FileError) {
            contents?[file] = try file.contents(of: descriptor)
            askForNext()
        } catch {
            finish(.failure(error))
        }
    }

    private func lose() {
        if let number = door.rawValue { loop.remove(number) }
        door = nil
        if contents != nil { finish(.failure(FileError("the process that opens files", "is gone: tgt-connect has to be started anew"))) }
    }

    private func finish(_ result: Result<Contents, FileError>) {
        contents = nil
        if isStale, door.rawValue != nil { return read() }
        whenRead(result)
    }
}
