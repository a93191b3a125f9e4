import Foundation
import FuzzTargets
import Testing

@Suite struct FuzzCorpusTests {
    private static let folder = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent().appending(path: "Corpus")

    /// The inputs kept for a fuzzer.
    private static func corpus(_ name: String) throws -> [URL] {
        try FileManager.default.contentsOfDirectory(at: folder.appending(path: name), includingPropertiesForKeys: nil)
    }

    @Test("What the fuzzers have found worth keeping does no harm", arguments: Fuzzer.all.map(\.name))
    func replay(name: String) throws {
        let fuzzer = try #require(Fuzzer.named(name))
        let inputs = try Self.corpus(name)
        #expect(!inputs.isEmpty, "every fuzzer has its corpus")
        for input in inputs { fuzzer.run([UInt8](try Data(contentsOf: input))) }
        fuzzer.run([])
    }

    @Test("Every corpus has its fuzzer, and all together are small")
    func corpora() throws {
        let names = try FileManager.default.contentsOfDirectory(atPath: Self.folder.path)
        #expect(Set(names) == Set(Fuzzer.all.map(\.name)))
        let bytes = try names.flatMap { try Self.corpus($0) }.reduce(0) { try $0 + ($1.resourceValues(forKeys: [.fileSizeKey]).fileSize ?? 0) }
        #expect(bytes < 1 << 20)
    }
}
