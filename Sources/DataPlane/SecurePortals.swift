import Bytes
import Door
import TLS

/// What portals with TLS present and accept, and who makes their handshakes.
final class SecurePortals {
    let handshakes: Handshakes
    let questions: HandshakeQuestions
    private var contexts: [UInt32: ServerContext] = [:]
    /// Of what is on its way.
    private var parts: [UInt32: [UInt8]] = [:]

    /// - Parameter ask: reaches control, from any thread
    init(_ handshakes: Handshakes, ask: @escaping @Sendable (LoginQuestionMessage) -> Void) {
        self.handshakes = handshakes
        questions = HandshakeQuestions(ask)
    }

    subscript(portal: UInt32) -> ServerContext? { contexts[portal] }

    /// Control tells of a portal, part by part.
    /// - Returns: what it presents and accepts from now on; nil: there is more to come
    func take(_ part: [UInt8], isLast: Bool, of portal: UInt32) throws -> ServerContext? {
        let bytes = parts.removeValue(forKey: portal).map { $0 + part } ?? part
        guard bytes.count <= MaterialParts.most else { throw ByteReaderError.invalid }
        guard isLast else {
            parts[portal] = bytes
            return nil
        }
        let context = try questions.context(portal: portal, try MaterialParts.material(bytes))
        contexts[portal] = context
        return context
    }

    func forget(_ portal: UInt32) { contexts[portal] = nil }
}
