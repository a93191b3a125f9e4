import Glibc
import Testing

@testable import Reactor

/// A folder of a test's own.
private final class Folder {
    let path: String

    init() throws {
        var template = Array("/tmp/portcullis-files-XXXXXX\0".utf8CString.dropLast())
        guard unsafe mkdtemp(&template) != nil else { throw SystemError("mkdtemp", errno) }
        path = String(decoding: template.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
    }

    /// What the tests make in it.
    deinit { for name in ["/a/b", "/a", ""] { _ = unsafe rmdir(path + name) } }
}

private func mode(_ path: String) -> mode_t {
    var status = stat()
    return unsafe stat(path, &status) == 0 ? status.st_mode & 0o7777 : 0
}

@Suite struct FilesTests {
    @Test("A directory for files with power is made for us alone, and so are those above it")
    func made() throws {
        let folder = try Folder()
        try Files.makeTrustedDirectory(folder.path + "/a/b")
        #expect(mode(folder.path + "/a/b") == 0o700 && mode(folder.path + "/a") == 0o700)
        // A second start finds it.
        try Files.makeTrustedDirectory(folder.path + "/a/b")
    }

    @Test("One into which somebody else could put files is refused", arguments: [0o720, 0o702, 0o1777] as [mode_t])
    func writable(by others: mode_t) throws {
        let folder = try Folder()
        let path = folder.path + "/a"
        try Files.makeTrustedDirectory(path)
        #expect(unsafe chmod(path, others) == 0)
        #expect(throws: FileError(path, "can be written by others; take that away (chmod go-w)")) { try Files.makeTrustedDirectory(path) }
        // Others may look.
        #expect(unsafe chmod(path, 0o755) == 0)
        try Files.makeTrustedDirectory(path)
    }

    @Test("One that belongs to somebody else is refused", .enabled(if: geteuid() == 0, "only root gives directories away"))
    func foreign() throws {
        let folder = try Folder()
        let path = folder.path + "/a"
        try Files.makeTrustedDirectory(path)
        #expect(unsafe chown(path, 65534, 65534) == 0)
        let refusal = #expect(throws: FileError.self) { try Files.makeTrustedDirectory(path) }
        #expect(refusal?.reason.hasPrefix("belongs to uid 65534") == true)
    }

    @Test("A file to depend on is opened if only we can have written it, and read it if it is private; what it is not is said")
    func openTrusted() throws {
        let folder = try Folder()
        let path = folder.path + "/a"
        defer { Files.remove(path) }
        try Files.replace(path, with: Array("contents".utf8), mode: 0o644)
        func trouble(limit: Int = 8, isPrivate: Bool = false, _ path: String) -> String? {
            do throws(FileError) { _ = try Files.openTrusted(path, limit: limit, isPrivate: isPrivate) } catch { return error.reason }
            return nil
        }
        let descriptor = try Files.openTrusted(path, limit: 8, isPrivate: false)
        var room = [UInt8](repeating: 0, count: 5)
        var span = room.mutableSpan
        #expect(try Files.read(descriptor.rawValue, into: &span) == 5)
        #expect(room == Array("conte".utf8))
        room = Array(repeating: 0, count: 20)
        span = room.mutableSpan
        #expect(try Files.read(descriptor.rawValue, into: &span) == 8)
        #expect(trouble(limit: 7, path) == "is larger than 7 bytes" && trouble(isPrivate: true, path)?.contains("read by others") == true)
        func trouble(mode: mode_t) -> String? { unsafe chmod(path, mode) == 0 ? trouble(isPrivate: true, path) : "chmod" }
        #expect(trouble(mode: 0o600) == nil && trouble(mode: 0o620)?.contains("written by others") == true)
        #expect(trouble(folder.path) == "is not a regular file" && trouble("/dev/null") == "is not a regular file")
        #expect(trouble(path + "/none") == "Not a directory" && trouble(path + "none") == "No such file or directory")
    }
}
