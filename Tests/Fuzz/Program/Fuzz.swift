import FuzzTargets

#if canImport(Glibc)
import Glibc
#endif

/// libFuzzer's way in, once for every input. Which fuzzer it is, the environment says: FUZZER=<name>.
@_cdecl("LLVMFuzzerTestOneInput")
public func testOneInput(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    fuzzer.run(unsafe Array(UnsafeBufferPointer(start: start, count: count)))
    return 0
}

private let fuzzer: Fuzzer = {
    guard let name = unsafe getenv("FUZZER"), let fuzzer = unsafe Fuzzer.named(String(cString: name)) else {
        print("FUZZER is one of: \(Fuzzer.all.map(\.name).joined(separator: " "))")
        exit(2)
    }
    return fuzzer
}()
