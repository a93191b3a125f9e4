import Bytes
import ISCSI

/// The values of CHAP as they pass the door.
private enum CHAPLimits {
    /// Bytes of CHAP_N: a text value (RFC 7143 §6.1).
    static let name = 255
    /// Bytes of CHAP_C (RFC 7143 §12.1.3).
    static let challenge = 1024
}

extension ByteReader {
    fileprivate mutating func algorithm() throws(ByteReaderError) -> CHAPAlgorithm { try enumeration() }

    fileprivate mutating func bytes(_ range: ClosedRange<Int>) throws(ByteReaderError) -> [UInt8] {
        let bytes = try byteString(limit: range.upperBound)
        guard range.contains(bytes.count) else { throw .invalid }
        return bytes
    }
}

extension Authentication {
    func encode(into writer: inout ByteWriter) {
        let demand: CHAPDemand? = if case .chap(let demand) = self { demand } else { nil }
        writer.write(demand) { writer, demand in
            writer.write(demand.algorithms.sorted()) { $0.write($1.rawValue) }
            writer.write(demand.identifier)
            writer.write(demand.challenge)
        }
    }

    init(from reader: inout ByteReader) throws(ByteReaderError) {
        let demand = try reader.optional { reader throws(ByteReaderError) in
            let algorithms = try reader.list(limit: CHAPAlgorithm.allCases.count) { reader throws(ByteReaderError) in try reader.algorithm() }
            return CHAPDemand(algorithms: Set(algorithms), identifier: try reader.uint8(), challenge: try reader.bytes(1...CHAPLimits.challenge))
        }
        self = demand.map { .chap($0) } ?? .none
    }
}

extension CHAPAnswer {
    func encode(into writer: inout ByteWriter) {
        writer.write(algorithm.rawValue)
        writer.write(name)
        writer.write(response)
        writer.write(counterdemand) { writer, counterdemand in
            writer.write(counterdemand.identifier)
            writer.write(counterdemand.challenge)
        }
    }

    init(from reader: inout ByteReader) throws(ByteReaderError) {
        let algorithm = try reader.algorithm()
        self.init(
            algorithm: algorithm, name: try reader.bytes(1...CHAPLimits.name),
            response: try reader.bytes(algorithm.responseLength...algorithm.responseLength),
            counterdemand: try reader.optional { reader throws(ByteReaderError) in
                Counterdemand(identifier: try reader.uint8(), challenge: try reader.bytes(1...CHAPLimits.challenge))
            })
    }
}

extension CHAPProof {
    func encode(into writer: inout ByteWriter) {
        writer.write(name)
        writer.write(response)
    }

    init(from reader: inout ByteReader) throws(ByteReaderError) {
        self.init(name: try reader.bytes(1...CHAPLimits.name), response: try reader.bytes(1...64))
    }
}
