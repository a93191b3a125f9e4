import Bytes
import Crypto
import ISCSI
import TLS

extension LoginQuestionMessage: DoorMessage {
    public static let table: [DoorRow] = [
        DoorRow(1, "begin", limit: 16 << 10, descriptors: 1...1, perSecond: 20_000, in: [.unknown]),
        DoorRow(2, "finish", limit: 32 << 10, descriptors: 1...1, perSecond: 20_000, in: [.negotiating]),
        DoorRow(3, "sendTargets", perSecond: 5_000, in: [.discovering]),
        DoorRow(4, "gone", limit: 16, perSecond: 50_000, in: Set(LoginPhase.allCases)),
        DoorRow(5, "heartbeat", limit: 32, perSecond: 100),
        DoorRow(6, "authenticate", perSecond: 20_000, in: [.proving]),
        DoorRow(7, "failed", limit: 16, descriptors: 1...1, perSecond: 20_000),
        DoorRow(8, "sign", limit: 1024, perSecond: 10_000, isForTLS: true),
        DoorRow(9, "preSharedKey", limit: 1024, perSecond: 10_000, isForTLS: true),
        DoorRow(10, "handshakeFailed", limit: 1024, descriptors: 1...1, perSecond: 20_000, isForTLS: true),
    ]

    public var code: UInt8 {
        switch self {
        case .begin: 1
        case .finish: 2
        case .sendTargets: 3
        case .gone: 4
        case .heartbeat: 5
        case .authenticate: 6
        case .failed: 7
        case .sign: 8
        case .preSharedKey: 9
        case .handshakeFailed: 10
        }
    }

    public func encodeBody(into writer: inout ByteWriter) {
        switch self {
        case .begin(let id, let question, let channel):
            writer.write(id.rawValue)
            question.encode(into: &writer)
            channel.encode(into: &writer)
        case .finish(let id, let outcome):
            writer.write(id.rawValue)
            outcome.encode(into: &writer)
        case .sendTargets(let id, let scope):
            writer.write(id.rawValue)
            scope.encode(into: &writer)
        case .gone(let id): writer.write(id.rawValue)
        case .heartbeat(let count, let refused):
            writer.write(count)
            writer.write(refused)
        case .authenticate(let id, let answer):
            writer.write(id.rawValue)
            answer.encode(into: &writer)
        case .failed(let offence): writer.write(offence.rawValue)
        case .sign(let request, let portal, let scheme, let message):
            writer.write(request.rawValue)
            writer.write(portal)
            writer.write(scheme.rawValue)
            writer.write(message)
        case .preSharedKey(let request, let portal, let identity):
            writer.write(request.rawValue)
            writer.write(portal)
            writer.write(identity)
        case .handshakeFailed(let portal, let cause, let reason, let source):
            writer.write(portal)
            writer.write(cause.rawValue)
            writer.write(reason)
            source.encode(into: &writer)
        }
    }

    public init(code: UInt8, body reader: inout ByteReader) throws(ByteReaderError) {
        switch code {
        case 1: self = .begin(ConnectionID(rawValue: try reader.uint64()), try LoginQuestion(from: &reader), try LoginChannel(from: &reader))
        case 2: self = .finish(ConnectionID(rawValue: try reader.uint64()), try LoginOutcome(from: &reader))
        case 3: self = .sendTargets(ConnectionID(rawValue: try reader.uint64()), try TextRequest.Selection(from: &reader))
        case 4: self = .gone(ConnectionID(rawValue: try reader.uint64()))
        case 5: self = .heartbeat(try reader.uint64(), refused: try reader.uint64())
        case 6: self = .authenticate(ConnectionID(rawValue: try reader.uint64()), try CHAPAnswer(from: &reader))
        case 7: self = .failed(try reader.enumeration())
        case 8:
            self = .sign(
                RequestID(rawValue: try reader.uint64()), portal: try reader.uint32(), try reader.signatureScheme(),
                try reader.byteString(limit: ChannelLimits.signed))
        case 9:
            self = .preSharedKey(
                RequestID(rawValue: try reader.uint64()), portal: try reader.uint32(), identity: try reader.byteString(limit: ChannelLimits.identity))
        case 10:
            let portal = try reader.uint32()
            guard let cause = TLSFailure.Cause(rawValue: try reader.string(limit: ChannelLimits.word)) else { throw .invalid }
            self = .handshakeFailed(portal: portal, cause, try reader.string(limit: ChannelLimits.reason), from: try Source(from: &reader))
        default: throw .invalid
        }
    }

    /// The connection that it is about.
    public var connection: ConnectionID? {
        switch self {
        case .begin(let id, _, _), .authenticate(let id, _), .finish(let id, _), .sendTargets(let id, _), .gone(let id): id
        case .failed, .heartbeat, .sign, .preSharedKey, .handshakeFailed: nil
        }
    }
}

extension LoginAnswerMessage: DoorMessage {
    public static let table: [DoorRow] = [
        DoorRow(1, "listen", limit: 16, descriptors: 1...1),
        DoorRow(2, "stopListening", limit: 16),
        DoorRow(3, "setOnline", limit: 16),
        DoorRow(4, "proceed", limit: 16 << 10),
        DoorRow(5, "refuse", limit: 32),
        DoorRow(6, "turnAway", limit: DoorLimits.refusal + 5, descriptors: 1...1),
        DoorRow(7, "targets", limit: DoorLimits.message),
        DoorRow(8, "heartbeat", limit: 16),
        DoorRow(9, "authenticated", limit: 16 << 10),
        DoorRow(10, "drop", limit: 16),
        DoorRow(11, "keepOut", limit: 32),
        DoorRow(12, "secure", limit: DoorLimits.message),
        DoorRow(13, "signed", limit: 1024),
        DoorRow(14, "preSharedKey", limit: 512, isSecret: true),
    ]

    public var code: UInt8 {
        switch self {
        case .listen: 1
        case .stopListening: 2
        case .setOnline: 3
        case .proceed: 4
        case .refuse: 5
        case .turnAway: 6
        case .targets: 7
        case .heartbeat: 8
        case .authenticated: 9
        case .drop: 10
        case .keepOut: 11
        case .secure: 12
        case .signed: 13
        case .preSharedKey: 14
        }
    }

    public func encodeBody(into writer: inout ByteWriter) {
        switch self {
        case .listen(let portal), .stopListening(let portal): writer.write(portal)
        case .setOnline(let isOnline): writer.write(isOnline)
        case .proceed(let id, let parameters, let tag, let authentication):
            writer.write(id.rawValue)
            parameters.encode(into: &writer)
            writer.write(tag)
            authentication.encode(into: &writer)
        case .refuse(let id, let status):
            writer.write(id.rawValue)
            writer.write(status.rawValue)
        case .turnAway(let refusal): writer.write(refusal)
        case .drop(let id): writer.write(id.rawValue)
        case .keepOut(let source, let milliseconds):
            source.encode(into: &writer)
            writer.write(milliseconds)
        case .authenticated(let id, let parameters, let proof):
            writer.write(id.rawValue)
            parameters.encode(into: &writer)
            writer.write(proof) { $1.encode(into: &$0) }
        case .targets(let id, let targets, let isLast):
            writer.write(id.rawValue)
            writer.write(targets) { $1.encode(into: &$0) }
            writer.write(isLast)
        case .heartbeat(let count): writer.write(count)
        case .secure(let portal, let part, let isLast):
            writer.write(portal)
            writer.write(part)
            writer.write(isLast)
        case .signed(let request, let signature):
            writer.write(request.rawValue)
            writer.write(signature) { $0.write($1) }
        case .preSharedKey(let request, let key):
            writer.write(request.rawValue)
            writer.write(key) { writer, key in
                let bytes = key.withBytes { bytes in (0..<bytes.count).map { bytes[$0] } }
                writer.write(bytes)
                wipe(bytes)
            }
        }
    }

    public init(code: UInt8, body reader: inout ByteReader) throws(ByteReaderError) {
        switch code {
        case 1: self = .listen(portal: try reader.uint32())
        case 2: self = .stopListening(portal: try reader.uint32())
        case 3: self = .setOnline(try reader.bool())
        case 4:
            self = .proceed(
                ConnectionID(rawValue: try reader.uint64()), try SessionParameters(from: &reader), portalGroupTag: try reader.uint16(),
                try Authentication(from: &reader))
        case 5: self = .refuse(ConnectionID(rawValue: try reader.uint64()), try reader.loginStatus())
        case 6: self = .turnAway(try reader.byteString(limit: DoorLimits.refusal))
        case 7: self = .targets(ConnectionID(rawValue: try reader.uint64()), try reader.discoveredTargets(), isLast: try reader.bool())
        case 8: self = .heartbeat(try reader.uint64())
        case 9:
            self = .authenticated(
                ConnectionID(rawValue: try reader.uint64()), try SessionParameters(from: &reader),
                try reader.optional { reader throws(ByteReaderError) in try CHAPProof(from: &reader) })
        case 10: self = .drop(ConnectionID(rawValue: try reader.uint64()))
        case 11: self = .keepOut(try Source(from: &reader), milliseconds: try reader.uint32())
        case 12: self = .secure(portal: try reader.uint32(), try reader.byteString(limit: DoorLimits.message), isLast: try reader.bool())
        case 13:
            self = .signed(
                RequestID(rawValue: try reader.uint64()),
                try reader.optional { reader throws(ByteReaderError) in try reader.byteString(limit: ChannelLimits.signature) })
        case 14:
            self = .preSharedKey(
                RequestID(rawValue: try reader.uint64()),
                try reader.optional { reader throws(ByteReaderError) in
                    let bytes = try reader.byteString(limit: ChannelLimits.key)
                    defer { wipe(bytes) }
                    return Secret(bytes)
                })
        default: throw .invalid
        }
    }
}
