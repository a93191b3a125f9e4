import Management
import Testing

func bytes(_ hexadecimal: String) -> [UInt8] {
    let digits = hexadecimal.utf8.map { UInt8($0 < 0x3a ? $0 - 0x30 : $0 - 0x61 + 10) }
    return stride(from: 0, to: digits.count, by: 2).map { digits[$0] << 4 | digits[$0 + 1] }
}

func decode(_ bytes: [UInt8]) throws(TgtWireError) -> TgtRequest? {
    var decoder = TgtRequestDecoder()
    return try decoder.feed(bytes.span)
}

@Suite("tgt's protocol on the wire")
struct WireTests {
    static let example: TgtRequest = {
        var request = TgtRequest(.logicalUnit, .new)
        request.lld = utf8("iscsi")
        request.tid = 7
        request.sid = 0x0102_0304_0506_0708
        request.lun = 1
        request.cid = 3
        request.hostNumber = 4
        request.deviceType = 5
        request.accountDirection = .outgoing
        request.force = true
        request.payload = utf8("path=/x,bstype=rdwr")
        return request
    }()

    @Test("requests are byte for byte what Debian's tgtadm sends")
    func captured() throws {
        let zeros64 = String(repeating: "00", count: 64)
        var unit = TgtRequest(.logicalUnit, .new)
        unit.tid = 1
        unit.lun = 1
        unit.payload = utf8("path=/x,bstype=rdwr,bsopts=opt,bsoflags=sync,blocksize=4096")
        #expect(unit.encoded() == bytes(
            "0200000000000000" + zeros64 + "b40000000100000000000000000000000100000000000000" + String(repeating: "00", count: 24)
                + "706174683d2f782c6273747970653d726477722c62736f7074733d6f70742c62736f666c6167733d73796e632c626c6f636b73697a653d3430393600"))
        var connection = TgtRequest(.connection, .delete)
        connection.tid = 1
        connection.sid = 2
        connection.cid = 3
        #expect(connection.encoded() == bytes(
            "0600000001000000" + zeros64 + "78000000010000000200000000000000ffffffffffffffff03000000" + String(repeating: "00", count: 20)))
    }

    @Test("a request survives encoding and decoding, at every split of its bytes")
    func everySplit() throws {
        let whole = try #require(Self.example.encoded())
        for split in 0...whole.count {
            var decoder = TgtRequestDecoder()
            let first = try decoder.feed(whole.span.extracting(..<split))
            #expect((first != nil) == (split == whole.count))
            if first == nil { #expect(try decoder.feed(whole.span.extracting(split...)) == Self.example) }
        }
        var decoder = TgtRequestDecoder()
        for index in whole.indices.dropLast() { #expect(try decoder.feed(whole.span.extracting(index..<index + 1)) == nil) }
        #expect(try decoder.feed(whole.span.extracting((whole.count - 1)...)) == Self.example)
    }

    @Test("no part of a request is a request")
    func truncated() throws {
        let whole = try #require(Self.example.encoded())
        for count in 0..<whole.count { #expect(try decode(Array(whole[..<count])) == nil) }
    }

    @Test("every mode and operation survives, the next number does not")
    func modesAndOperations() throws {
        for mode in TgtRequest.Mode.allCases {
            for operation in TgtRequest.Operation.allCases {
                #expect(try decode(try #require(TgtRequest(mode, operation).encoded())) == TgtRequest(mode, operation))
            }
        }
        for (offset, name, value) in [(0, "mode", 8), (4, "op", 9), (108, "ac_dir", 2)] as [(Int, String, UInt8)] {
            var wrong = try #require(TgtRequest(.system, .show).encoded())
            wrong[offset] = value
            #expect(throws: TgtWireError.field(name, UInt32(value))) { try decode(wrong) }
            wrong[offset] = 0
            wrong[offset + 3] = 0x80
            #expect(throws: TgtWireError.field(name, 0x8000_0000)) { try decode(wrong) }
        }
    }

    @Test("the length is the header's at least and 8192 more at most")
    func lengths() throws {
        func withLength(_ length: UInt32) throws -> [UInt8] {
            var header = try #require(TgtRequest(.system, .show).encoded())
            for index in 0..<4 { header[72 + index] = UInt8(truncatingIfNeeded: length >> UInt32(8 * index)) }
            return header
        }
        for length in [0, 8, 119, 120 + 8193, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff] as [UInt32] {
            #expect(throws: TgtWireError.length(length)) { try decode(try withLength(length)) }
        }
        #expect(try decode(try withLength(120)) != nil)
        var longest = TgtRequest(.target, .new)
        longest.payload = [UInt8](repeating: 0x61, count: 8191)
        #expect(try decode(try #require(longest.encoded())) == longest)
        longest.payload.append(0x61)
        #expect(longest.encoded() == nil)
    }

    @Test("a driver's name ends with a zero and has nothing behind it")
    func driverName() throws {
        var request = TgtRequest(.system, .show)
        request.lld = [UInt8](repeating: 0x61, count: 63)
        #expect(try decode(try #require(request.encoded())) == request)
        request.lld.append(0x61)
        #expect(request.encoded() == nil)
        var wrong = try #require(TgtRequest(.system, .show).encoded())
        for index in 8..<72 { wrong[index] = 0x61 }
        #expect(throws: TgtWireError.driverName) { try decode(wrong) }
        wrong[20] = 0
        #expect(throws: TgtWireError.driverName) { try decode(wrong) }
    }

    @Test("text ends with its only zero")
    func textEnd() throws {
        let whole = try #require(Self.example.encoded())
        var noZero = whole
        noZero[whole.count - 1] = 0x61
        #expect(throws: TgtWireError.text) { try decode(noZero) }
        var twoZeros = whole
        twoZeros[125] = 0
        #expect(throws: TgtWireError.text) { try decode(twoZeros) }
    }

    @Test("bytes behind a request are an error")
    func trailing() throws {
        let whole = try #require(Self.example.encoded())
        #expect(throws: TgtWireError.trailing) { try decode(whole + [0]) }
        var decoder = TgtRequestDecoder()
        #expect(try decoder.feed(whole.span) != nil)
        let more: [UInt8] = [0]
        #expect(throws: TgtWireError.trailing) { try decoder.feed(more.span) }
        var refused = TgtRequestDecoder()
        let header = [UInt8](repeating: 0, count: 120)
        #expect(throws: TgtWireError.length(0)) { try refused.feed(header.span) }
        #expect(throws: TgtWireError.trailing) { try refused.feed(more.span) }
    }

    @Test("an answer survives encoding and decoding, at every split of its bytes", arguments: ["", "x", "Target 1: a\n"])
    func answers(report: String) throws {
        let response = TgtResponse(.success, text: utf8(report))
        let whole = response.encoded()
        #expect(whole.count == (report.isEmpty ? 8 : 9 + report.utf8.count))
        for split in 0...whole.count {
            var decoder = TgtResponseDecoder()
            let first = try decoder.feed(whole.span.extracting(..<split))
            #expect((first != nil) == (split == whole.count))
            if first == nil { #expect(try decoder.feed(whole.span.extracting(split...)) == response) }
        }
    }

    @Test("an answer's header is error number and length, little-endian")
    func answerBytes() {
        #expect(TgtResponse(.noTarget).encoded() == [4, 0, 0, 0, 8, 0, 0, 0])
        #expect(TgtResponse(text: utf8("ab")).encoded() == [0, 0, 0, 0, 11, 0, 0, 0, 0x61, 0x62, 0])
    }

    @Test("an answer shorter than its header, or far too long, is none")
    func answerLengths() {
        for length in [0, 7, 0xffff_ffff] as [UInt32] {
            let header = [0, 0, 0, 0] + (0..<4).map { UInt8(truncatingIfNeeded: length >> UInt32(8 * $0)) }
            #expect(throws: TgtWireError.length(length)) {
                var decoder = TgtResponseDecoder()
                _ = try decoder.feed(header.span)
            }
        }
    }
}
