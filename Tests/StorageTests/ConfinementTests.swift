import Foundation
import Glibc
import Synchronization
import Testing
@testable import Storage

/// Stores that have to be somewhere.
@Suite struct ConfinementTests {
    private struct Tree {
        let root: String
        init() throws {
            root = NSTemporaryDirectory() + "confinement-\(UUID().uuidString)"
            for directory in ["own/deep", "others"] { try FileManager.default.createDirectory(atPath: "\(root)/\(directory)", withIntermediateDirectories: true) }
            for file in ["own/disk", "own/deep/disk", "others/disk"] { try Data(count: 4096).write(to: URL(fileURLWithPath: "\(root)/\(file)")) }
            for (link, target) in [
                ("own/inside", "deep/disk"), ("own/out", "../others/disk"), ("own/far", "\(root)/others/disk"), ("own/way", "../others"), ("own/absolute", "\(root)/own/disk"),
                ("own/loop", "loop"), ("own/magic", "/proc/self/root\(root)/own/disk"), ("others/back", "../own/disk"),
            ] { try FileManager.default.createSymbolicLink(atPath: "\(root)/\(link)", withDestinationPath: target) }
        }
        func remove() { try? FileManager.default.removeItem(atPath: root) }
        func open(_ path: String, confined: Bool = true) -> StoreError.Reason? {
            let confinement = StoreConfinement(directories: [Array("\(root)/own".utf8)], mapperNames: [Array("*".utf8)], deviceLinks: [Array("*".utf8)])
            do throws(StoreError) {
                _ = try StoreOpener.open(path.hasPrefix("/") ? path : "\(root)/\(path)", within: confined ? confinement : nil)
                return nil
            } catch { return error.reason }
        }
    }

    @Test("Regular files are beneath the directory, and nothing leads out of it") func directories() throws {
        let tree = try Tree()
        defer { tree.remove() }
        for path in ["own/disk", "own/deep/disk", "own/inside", "own/deep/../disk", "own/./disk", "own//disk"] { #expect(tree.open(path) == nil, "\(path)") }
        for path in ["own/out", "own/far", "own/way/disk", "own/absolute", "own/loop", "own/magic", "own/../others/disk", "own/deep/../../others/disk"] {
            #expect(tree.open(path) == .elsewhere, "\(path)")
        }
        #expect(tree.open("own/missing") == .missing && tree.open("own/deep") == .isDirectory)
        // Without a confinement they are where they are.
        for path in ["own/out", "own/far", "own/way/disk", "own/absolute", "others/back"] { #expect(tree.open(path, confined: false) == nil, "\(path)") }
    }

    @Test("What is elsewhere is refused in one way, whether it is there or not") func elsewhere() throws {
        let tree = try Tree()
        defer { tree.remove() }
        for path in ["others/disk", "others/missing", "others/back", "others", "ownership", "own", "/etc/passwd", "/dev/zero", "/dev/null", "/nowhere", "/"] {
            #expect(tree.open(path) == .elsewhere, "\(path)")
        }
    }

    @Test("What is mounted there from /proc leads nowhere else, either") func magicLinks() throws {
        // As it is where somebody has bound /proc into the directory.
        let confinement = StoreConfinement(directories: [Array("/proc".utf8)])
        func open(_ path: String) -> StoreError.Reason? {
            do throws(StoreError) {
                _ = try StoreOpener.open(path, readOnly: true, within: confinement)
                return nil
            } catch { return error.reason }
        }
        for path in ["/proc/self/root/etc/passwd", "/proc/self/exe", "/proc/self/cwd/Package.swift", "/proc/self/fd/0", "/proc/thread-self/root/etc/passwd"] {
            #expect(open(path) == .elsewhere, "\(path)")
        }
        #expect(open("/proc/version") == .isEmpty)
    }

    @Test("Nobody comes out by making a directory a link while it is opened") func race() throws {
        let tree = try Tree()
        defer { tree.remove() }
        try Data(count: 8192).write(to: URL(fileURLWithPath: "\(tree.root)/others/disk"))
        let swapper = Swapper(tree.root)
        defer { swapper.stop() }
        let confinement = StoreConfinement(directories: [Array("\(tree.root)/own".utf8)])
        var (opened, refused) = (0, 0)
        let end = ContinuousClock.now + .seconds(20)
        while ContinuousClock.now < end, opened < 300 || refused < 300 {
            // By `..` the kernel may give up while somebody renames.
            for path in ["swap/disk", "swap/../deep/disk"] {
                do throws(StoreError) {
                    let store = try StoreOpener.open("\(tree.root)/own/\(path)", within: confinement)
                    opened += 1
                    guard store.length == 4096 else { throw StoreError(path: path, reason: .failed(0)) }
                } catch {
                    refused += 1
                    let isExpected = [.elsewhere, .missing, .failed(EAGAIN)].contains(error.reason)
                    try #require(isExpected, "\(error.reason): that is another's")
                }
            }
        }
        #expect(opened >= 300 && refused >= 300, "\(opened) opened, \(refused) refused")
    }

    /// Makes `own/swap` a link to the inside and to the outside in turn, until it is told to stop.
    private final class Swapper: Sendable {
        private let isStopped = Atomic(false)
        init(_ root: String) {
            Thread.detachNewThread { [self] in
                while !isStopped.load(ordering: .relaxed) {
                    for way in ["../others", "deep"] {
                        unsafe _ = symlink(way, "\(root)/own/new")
                        unsafe _ = rename("\(root)/own/new", "\(root)/own/swap")
                    }
                }
            }
        }
        func stop() { isStopped.store(true, ordering: .relaxed) }
    }

    @Test("A device is a tenant's by what the device mapper calls it, or by a link that is its own, whatever path is named", .enabled(if: geteuid() == 0)) func names() throws {
        let tree = try Tree()
        defer { tree.remove() }
        // Two devices that no driver has: they are found, and cannot be opened.
        for (name, minor) in [("dm", 200), ("disk", 201), ("other", 202)] as [(String, Int32)] {
            guard unsafe mknod("\(tree.root)/\(name)", S_IFBLK | 0o600, dev_t(250 << 8 | Int(minor))) == 0 else { return }
        }
        try FileManager.default.createDirectory(atPath: "\(tree.root)/sys/dev/block/250:200/dm", withIntermediateDirectories: true)
        try Data("vg_red-disk\n".utf8).write(to: URL(fileURLWithPath: "\(tree.root)/sys/dev/block/250:200/dm/name"))
        try FileManager.default.createDirectory(atPath: "\(tree.root)/dev/disk/by-id", withIntermediateDirectories: true)
        try FileManager.default.createSymbolicLink(atPath: "\(tree.root)/dev/disk/by-id/wwn-0x5000c500a1", withDestinationPath: "../../../disk")
        try FileManager.default.createSymbolicLink(atPath: "\(tree.root)/dev/disk/by-id/wwn-file", withDestinationPath: "../../../own/disk")
        // As LVM's paths are: links from elsewhere.
        try FileManager.default.createSymbolicLink(atPath: "\(tree.root)/own/lv", withDestinationPath: "../dm")
        func isFound(_ path: String, mapper: [String] = [], links: [String] = [], directories: [String] = []) -> Bool {
            let confinement = StoreConfinement(
                directories: directories.map { Array("\(tree.root)/\($0)".utf8) }, mapperNames: mapper.map { Array($0.utf8) }, deviceLinks: links.map { Array($0.utf8) },
                root: tree.root)
            do throws(StoreError) {
                _ = try StoreOpener.open("\(tree.root)/\(path)", within: confinement)
                Issue.record("\(path) opens")
                return true
            } catch { return error.reason != .elsewhere }
        }
        for pattern in ["vg_red-*", "vg_red-disk", "*", "vg_???-disk"] { #expect(isFound("dm", mapper: [pattern]) && isFound("own/lv", mapper: [pattern]), "\(pattern)") }
        for pattern in ["vg_blue-*", "vg_red", "VG_RED-*", "dm", "*/dm", "vg_red-disk?"] { #expect(!isFound("dm", mapper: [pattern]), "\(pattern)") }
        #expect(!isFound("dm", links: ["*"]) && !isFound("disk", mapper: ["*"]))
        #expect(isFound("disk", links: ["wwn-0x5*"]) && isFound("dev/disk/by-id/wwn-0x5000c500a1", links: ["wwn-0x5*"]))
        #expect(!isFound("disk", links: ["wwn-0x6*"]) && !isFound("other", links: ["*"], directories: []) && !isFound("other", mapper: ["*"]))
        // A pattern for devices lets no file in, and a directory no device.
        #expect(!isFound("dev/disk/by-id/wwn-file", links: ["*"]) && !isFound("own/disk", mapper: ["*"], links: ["*"]))
        #expect(!isFound("own/lv", mapper: ["*"], directories: ["own"]))
    }

    @Test("A block device is known by its names, not by its path", .enabled(if: geteuid() == 0)) func devices() throws {
        let tree = try Tree()
        defer { tree.remove() }
        // One that has no name of the device mapper and no link: neither where its own node is nor where somebody has put one.
        guard FileManager.default.fileExists(atPath: "/dev/loop0") else { return }
        #expect(tree.open("/dev/loop0") == .elsewhere)
        guard unsafe mknod("\(tree.root)/own/node", S_IFBLK | 0o600, 7 << 8) == 0 else { return }
        #expect(tree.open("own/node") == .elsewhere)
    }
}
