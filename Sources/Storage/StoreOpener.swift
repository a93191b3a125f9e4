import Bytes
import CLinux
import Glibc
import Reactor

/// Why a backing store cannot be had, in words for an administrator.
public struct StoreError: Error, Hashable, Sendable, CustomStringConvertible {
    public enum Reason: Error, Hashable {
        case badPath
        case missing
        case isDirectory
        case isCharacterDevice
        case isNeitherFileNorDevice
        case isEmpty
        case notPermitted
        case readOnlyMedium
        case inUse
        /// It is not where the tenant's stores may be; whether it is there at all is not said.
        case elsewhere
        case noDirectAccess
        /// The length in bytes, and what it must be a multiple of.
        case lengthOffAlignment(UInt64, Int)
        /// errno.
        case failed(Int32)
    }

    public let path: String
    public let reason: Reason

    public var description: String {
        switch reason {
        case .badPath: "a backing store needs the absolute path of a file or a block device"
        case .missing: "\(path) does not exist: create it first (for a file: truncate -s SIZE PATH)"
        case .isDirectory: "\(path) is a directory: a backing store is a regular file or a block device"
        case .isCharacterDevice: "\(path) is a character device: a backing store is a regular file or a block device"
        case .isNeitherFileNorDevice: "\(path) is neither a regular file nor a block device"
        case .isEmpty: "\(path) has no room for a single block of 512 bytes: make it larger first (truncate -s SIZE PATH)"
        case .notPermitted: "\(path) may not be opened: its permissions, or those of a directory on the way, do not allow it"
        case .readOnlyMedium: "\(path) cannot be written: to serve it without writes, make the logical unit with readonly=1"
        case .inUse: "\(path) is in use: it is mounted, or LVM, MD, swap or another program holds it"
        case .elsewhere: "\(path) is not in a directory, and no device, of this tenant"
        case .noDirectAccess: "\(path) lies on a file system without direct I/O: leave out the flag \"direct\""
        case .lengthOffAlignment(let length, let alignment):
            "\(path) has \(length) bytes, which direct I/O cannot reach to the end: make it a multiple of \(alignment), or leave out the flag \"direct\""
        case .failed(let code): "\(path) cannot be opened: \(SystemError.text(of: code))"
        }
    }
}

/// A store that has been opened and found fit: what goes to the process that serves it.
public struct OpenedStore: ~Copyable, Sendable {
    public let descriptor: FileDescriptor
    /// Bytes.
    public let length: UInt64
    public let isBlockDevice: Bool
    /// Bytes of a physical sector of a device, or of a block of a file's file system.
    public let physicalSector: Int
}

/// Opens files and block devices. It may block for as long as a disk or a network file system takes: it belongs into a helper
/// process with a deadline.
public enum StoreOpener {
    /// The smallest block there is, in bytes.
    static let smallestLength: UInt64 = 512

    /// Opens `path` for reading, and for writing unless `readOnly`; never reads only because writing is not allowed.
    ///
    /// Nothing but a regular file or a block device is ever opened: opening some devices does something. A block device that
    /// will be written is opened exclusively, so that nothing else in the system that respects that writes to it.
    ///
    /// - Parameter exclusively: false opens a block device although others use it: two logical units can share one then
    public static func open(
        _ path: String, flags: StoreFlags = [], readOnly: Bool = false, exclusively: Bool = true, within confinement: StoreConfinement? = nil
    ) throws(StoreError) -> OpenedStore {
        do throws(StoreError.Reason) {
            return try openedStore(path, flags, readOnly, exclusively, confinement)
        } catch {
            throw StoreError(path: path, reason: error)
        }
    }

    private static func openedStore(
        _ path: String, _ flags: StoreFlags, _ readOnly: Bool, _ exclusively: Bool, _ confinement: StoreConfinement?
    ) throws(StoreError.Reason) -> OpenedStore {
        guard path.utf8.first == UInt8(ascii: "/"), !path.utf8.contains(0) else { throw .badPath }
        let found: FoundFile
        if let confinement {
            found = try confinement.look(path)
        } else {
            do throws(SystemError) { found = try FoundFile(path) } catch { throw reason(error.code, 0) }
        }
        let isBlockDevice = found.kind == .blockDevice
        if let refusal = refusal(of: found.kind) { throw refusal }

        var how = readOnly ? O_RDONLY : O_RDWR
        if flags.contains(.sync) { how |= O_DSYNC }
        if flags.contains(.direct) { how |= linux_o_direct }
        if isBlockDevice && exclusively && !readOnly { how |= O_EXCL }
        let opened: FileDescriptor
        do throws(SystemError) { opened = try found.open(how) } catch { throw reason(error.code, how) }
        let description: StoreDescription
        do throws(SystemError) { description = try StoreDescription(of: opened.rawValue) } catch { throw .failed(error.code) }
        guard description.length >= smallestLength else { throw .isEmpty }
        if flags.contains(.direct), !isBlockDevice {
            let told = linux_direct_alignment(opened.rawValue)
            if told == 0 { throw .noDirectAccess }
            let alignment = told > 0 ? Int(told) : description.sector
            guard description.length % UInt64(alignment) == 0 else { throw .lengthOffAlignment(description.length, alignment) }
        }
        return OpenedStore(
            descriptor: opened, length: description.length, isBlockDevice: isBlockDevice, physicalSector: description.physicalSector)
    }

    private static func refusal(of kind: FoundFile.Kind) -> StoreError.Reason? {
        switch kind {
        case .file, .blockDevice: nil
        case .directory: .isDirectory
        case .characterDevice: .isCharacterDevice
        case .other: .isNeitherFileNorDevice
        }
    }

    fileprivate static func reason(_ code: Int32, _ how: Int32) -> StoreError.Reason {
        switch code {
        case ENOENT, ENOTDIR, ENXIO, ENODEV: .missing
        case EROFS: .readOnlyMedium
        case EACCES, EPERM: .notPermitted
        case EBUSY: .inUse
        case EINVAL where how & linux_o_direct != 0: .noDirectAccess
        default: .failed(code)
        }
    }
}

/// Where a store has to be. What is elsewhere is refused in one way, whether it is there or not.
public struct StoreConfinement: Sendable {
    private let directories: [[UInt8]]
    private let mapperNames: [[UInt8]]
    private let deviceLinks: [[UInt8]]
    /// In front of /sys and /dev/disk.
    private let root: String

    /// - Parameters:
    ///   - directories: absolute paths; regular files beneath them
    ///   - mapperNames: patterns for names of the device mapper
    ///   - deviceLinks: patterns for links under /dev/disk/by-id
    public init(directories: [[UInt8]], mapperNames: [[UInt8]] = [], deviceLinks: [[UInt8]] = []) {
        self.init(directories: directories, mapperNames: mapperNames, deviceLinks: deviceLinks, root: "")
    }

    /// - Parameter root: where a test has its own /sys and /dev/disk
    init(directories: [[UInt8]], mapperNames: [[UInt8]], deviceLinks: [[UInt8]], root: String) {
        self.root = root
        self.directories = directories
        self.mapperNames = mapperNames
        self.deviceLinks = deviceLinks
    }

    /// Finds what the path names.
    fileprivate func look(_ path: String) throws(StoreError.Reason) -> FoundFile {
        let bytes = Array(path.utf8)
        if let directory = directories.first(where: { bytes.starts(with: $0 + [UInt8(ascii: "/")]) }) {
            let rest = bytes[(directory.count + 1)...].drop { $0 == UInt8(ascii: "/") }
            return try beneath(String(decoding: directory, as: UTF8.self), String(decoding: rest, as: UTF8.self))
        }
        // Whatever the path leads over: what counts is what the kernel and udev call the device behind it.
        do throws(SystemError) {
            let found = try FoundFile(path)
            if found.kind == .blockDevice, isMapped(found.device) || isLinked(found.device) { return found }
        } catch {}
        throw .elsewhere
    }

    /// A regular file beneath the directory.
    private func beneath(_ directory: String, _ rest: String) throws(StoreError.Reason) -> FoundFile {
        let found: FoundFile
        do throws(SystemError) { found = try FoundFile(rest, beneath: directory) } catch {
            throw error.code == EXDEV || error.code == ELOOP ? .elsewhere : StoreOpener.reason(error.code, 0)
        }
        // A device is known by its own name, wherever somebody has put a node for it.
        guard found.kind != .blockDevice else { throw .elsewhere }
        return found
    }

    private func isMapped(_ device: UInt64) -> Bool {
        guard !mapperNames.isEmpty else { return false }
        var name = [CChar](repeating: 0, count: 256)
        let length = unsafe linux_mapper_name(root, device, &name, name.count)
        guard length > 0 else { return false }
        let bytes = name.prefix(length).map { UInt8(bitPattern: $0) }
        return mapperNames.contains { Wildcard.matches($0[...], bytes[...]) }
    }

    private var links: String { root + "/dev/disk/by-id" }

    private func isLinked(_ device: UInt64) -> Bool {
        guard !deviceLinks.isEmpty, let names = try? Files.names(in: links) else { return false }
        for name in names where deviceLinks.contains(where: { Wildcard.matches($0[...], Array(name.utf8)[...]) }) {
            if let found = try? FoundFile(links + "/" + name), found.kind == .blockDevice, found.device == device { return true }
        }
        return false
    }
}
