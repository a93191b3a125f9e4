import Bytes
import Crypto

/// Cuts a stream of bytes into PDUs (RFC 7143 §11.2): header, additional headers, header digest, data, padding, data digest.
/// It holds a header at most; data pass through.
package struct Framing: Sendable {
    package enum Event {
        case needsInput
        /// `header` and `additionalHeaders` are complete and right by their digest.
        case header
        /// Data, in this range of the input; `position` is where in the data segment they belong.
        case data(Range<Int>, position: Int)
        /// The PDU is over, and its data right by their digest.
        case end
        case headerDigestIsWrong
        case dataDigestIsWrong
    }

    private enum Phase { case header, additionalHeaders, headerDigest, data, padding, dataDigest, end }

    package private(set) var header = BasicHeader()
    private(set) var additionalHeaders: [UInt8] = []
    private(set) var dataSegmentLength = 0
    private var phase = Phase.header
    /// Bytes that the current phase has taken.
    private var taken = 0
    private var digest = InlineArray<4, UInt8>(repeating: 0)
    private var crc = CRC32C()

    package init() {}

    /// Whether the next byte begins a PDU.
    var isAtBoundary: Bool { phase == .header && taken == 0 }

    /// Goes on with `input` from `offset` to the next event.
    package mutating func step(_ input: Span<UInt8>, _ offset: inout Int, headerDigest: Bool, dataDigest: Bool) -> Event {
        while true {
            switch phase {
            case .header:
                guard takeHeader(input, &offset) else { return .needsInput }
                dataSegmentLength = header.dataSegmentLength
                if !additionalHeaders.isEmpty { additionalHeaders.removeAll(keepingCapacity: true) }
                if header.totalAHSLength > 0 {
                    enter(.additionalHeaders)
                } else if let event = finishHeader(headerDigest) {
                    return event
                }
            case .additionalHeaders:
                let count = min(header.totalAHSLength - taken, input.count - offset)
                guard count > 0 else { return .needsInput }
                additionalHeaders.append(copying: input.extracting(offset..<offset + count))
                taken += count
                offset += count
                if taken == header.totalAHSLength, let event = finishHeader(headerDigest) { return event }
            case .headerDigest:
                guard takeDigest(input, &offset) else { return .needsInput }
                var crc = CRC32C()
                crc.update(header.bytes.span)
                crc.update(additionalHeaders.span)
                guard matches(crc) else { return .headerDigestIsWrong }
                enter(dataSegmentLength > 0 ? .data : .end)
                return .header
            case .data:
                let count = min(dataSegmentLength - taken, input.count - offset)
                guard count > 0 else { return .needsInput }
                let range = offset..<offset + count
                let position = taken
                take(input.extracting(range), dataDigest: dataDigest)
                offset += count
                return .data(range, position: position)
            case .padding:
                let count = min(PDU.padding(dataSegmentLength) - taken, input.count - offset)
                guard count > 0 else { return .needsInput }
                if dataDigest { crc.update(input.extracting(offset..<offset + count)) }
                taken += count
                offset += count
                if taken == PDU.padding(dataSegmentLength) { enter(dataDigest ? .dataDigest : .end) }
            case .dataDigest:
                guard takeDigest(input, &offset) else { return .needsInput }
                guard matches(crc) else { return .dataDigestIsWrong }
                enter(.end)
            case .end:
                enter(.header)
                crc = CRC32C()
                return .end
            }
        }
    }

    /// Where in the data segment the next bytes belong, and where it ends; nil while none are due.
    var dataDue: Range<Int>? { phase == .data ? taken..<dataSegmentLength : nil }

    /// Takes the next bytes of the data segment, which need not be in an input.
    mutating func take(_ data: borrowing Span<UInt8>, dataDigest: Bool) {
        precondition(phase == .data && data.count <= dataSegmentLength - taken)
        if dataDigest { crc.update(data) }
        taken += data.count
        guard taken == dataSegmentLength else { return }
        if PDU.padding(dataSegmentLength) > 0 { enter(.padding) } else { enter(dataDigest ? .dataDigest : .end) }
    }

    private mutating func enter(_ next: Phase) {
        phase = next
        taken = 0
    }

    private mutating func finishHeader(_ digested: Bool) -> Event? {
        if digested {
            enter(.headerDigest)
            return nil
        }
        enter(dataSegmentLength > 0 ? .data : .end)
        return .header
    }

    private mutating func takeHeader(_ input: Span<UInt8>, _ offset: inout Int) -> Bool {
        if taken == 0, input.count - offset >= PDU.headerLength {
            // Whole, as nearly always: a copy of known length is a few instructions.
            let whole = input.extracting(offset..<offset + PDU.headerLength)
            for index in 0..<PDU.headerLength { header.bytes[index] = whole[index] }
            taken = PDU.headerLength
            offset += PDU.headerLength
            return true
        }
        while taken < PDU.headerLength {
            guard offset < input.count else { return false }
            header.bytes[taken] = input[offset]
            taken += 1
            offset += 1
        }
        return true
    }

    private mutating func takeDigest(_ input: Span<UInt8>, _ offset: inout Int) -> Bool {
        while taken < PDU.digestLength {
            guard offset < input.count else { return false }
            digest[taken] = input[offset]
            taken += 1
            offset += 1
        }
        return true
    }

    /// The digest stands on the wire with its least significant byte first.
    private func matches(_ crc: CRC32C) -> Bool { digest.span.uint32(at: 0).byteSwapped == crc.value }
}

/// What the additional header segments of a SCSI Command say (RFC 7143 §11.2.2).
struct AdditionalHeaders {
    /// Expected bidirectional read data length, in bytes.
    private(set) var bidirectionalReadLength: UInt32?

    private static let extendedCDB: UInt8 = 1
    private static let bidirectionalRead: UInt8 = 2

    /// Nil if a length is 0, reaches over the end or does not fit the type, or a type is unknown.
    init?(_ bytes: Span<UInt8>) {
        var offset = 0
        while offset < bytes.count {
            // Segments come in whole words, so there are four bytes. AHSLength counts what follows AHSType.
            let length = Int(bytes.uint16(at: offset))
            let end = offset + (3 + length + 3) & ~3
            guard length > 0, end <= bytes.count else { return nil }
            switch bytes[offset + 2] {
            case Self.extendedCDB: break
            case Self.bidirectionalRead:
                guard length == 5, bidirectionalReadLength == nil else { return nil }
                bidirectionalReadLength = bytes.uint32(at: offset + 4)
            default: return nil
            }
            offset = end
        }
    }
}
