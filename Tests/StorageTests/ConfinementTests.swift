import Foundation
import Glibc
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
