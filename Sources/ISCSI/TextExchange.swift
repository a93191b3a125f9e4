import Bytes

/// A text negotiation in full-feature phase (RFC 7143 §7.4, §11.10, §11.11), from its first request to the last response.
struct TextExchange {
    enum Phase { case collecting, asking, answering }

    var initiatorTaskTag: UInt32
    var lun: UInt64
    /// The tag under which it goes on.
    var targetTransferTag: UInt32
    var phase = Phase.collecting
    var incoming: [UInt8] = []
    var outgoing: [UInt8] = []
    var sent = 0
    /// The initiator has nothing more to say.
    var isFinal = false
}

extension FullFeature {
    mutating func concludeText(_ header: BasicHeader) -> Event? {
        guard !(header.isFinal && header.continues), header.initiatorTaskTag != PDU.reservedTag else { return refuse(header, .protocolError) }
        var exchange: TextExchange
        if header.targetTransferTag == PDU.reservedTag {
            // One negotiation at a time; a new one takes the place of one that was left (RFC 7143 §11.10.4).
            guard text?.phase != .asking else { return refuse(header, .protocolError) }
            exchange = TextExchange(initiatorTaskTag: header.initiatorTaskTag, lun: header.lun, targetTransferTag: nextTag())
        } else {
            guard let known = text, known.phase != .asking, known.targetTransferTag == header.targetTransferTag,
                known.initiatorTaskTag == header.initiatorTaskTag
            else { return refuse(header, .invalidPDUField) }
            exchange = known
        }
        exchange.isFinal = header.isFinal
        text = nil
        if exchange.phase == .answering {
            guard header.dataSegmentLength == 0 else { return refuse(header, .protocolError) }
            text = exchange
            sendText()
            return nil
        }
        exchange.incoming += collected
        guard exchange.incoming.count <= FullFeatureLimits.textBytes else { return refuse(header, .invalidPDUField) }
        if header.continues {
            text = exchange
            respond(exchange, [], isFinal: false, continues: false)
            return nil
        }
        return answer(exchange, header)
    }

    private mutating func answer(_ exchange: TextExchange, _ header: BasicHeader) -> Event? {
        let pairs: [KeyValue]
        do throws(KeyValue.TextError) { pairs = try KeyValue.pairs(exchange.incoming, atMost: FullFeatureLimits.textKeys) } catch {
            return refuse(header, .protocolError)
        }
        var exchange = exchange
        exchange.incoming = []
        var seen: [ArraySlice<UInt8>] = []
        var selection: TextRequest.Selection?
        for pair in pairs {
            guard !seen.contains(pair.name) else { return refuse(header, .protocolError) }
            seen.append(pair.name)
            switch pair.key {
            case nil: KeyNegotiation.append(pair.name, "NotUnderstood".utf8, to: &exchange.outgoing)
            case .sendTargets:
                selection = self.selection(pair.value)
                if selection == nil { KeyNegotiation.append(pair.name, "Reject".utf8, to: &exchange.outgoing) }
            case .maxRecvDataSegmentLength:
                if let length = number(pair.value), Key.lengths.contains(length) {
                    maxXmitDataSegmentLength = min(Int(length), negotiated.maxXmitDataSegmentLength)
                } else {
                    KeyNegotiation.append(pair.name, "Reject".utf8, to: &exchange.outgoing)
                }
            case .initiatorAlias, .nodeArchitecture: break
            case _?: KeyNegotiation.append(pair.name, "Reject".utf8, to: &exchange.outgoing)
            }
        }
        exchange.phase = selection == nil ? .answering : .asking
        text = exchange
        if let selection { return .sendTargets(TextRequest(selection: selection, tag: exchange.targetTransferTag)) }
        sendText()
        return nil
    }

    /// What SendTargets asks for, nil if it may not be asked in this session (RFC 7143, Appendix C).
    private func selection(_ value: ArraySlice<UInt8>) -> TextRequest.Selection? {
        if value.elementsEqual("All".utf8) { return sessionType == .discovery ? .all : nil }
        if value.isEmpty { return sessionType == .normal ? .sessionTarget : nil }
        do throws(ISCSIName.NameError) { return .name(try ISCSIName(value)) } catch { return nil }
    }

    /// Answers SendTargets with what the initiator may see; none is an answer, too.
    public mutating func sendTargets(_ request: TextRequest, _ targets: [DiscoveredTarget]) {
        guard text?.phase == .asking, text?.targetTransferTag == request.tag else { preconditionFailure("each request is answered once") }
        for target in targets { text?.outgoing += target.text }
        text?.phase = .answering
        sendText()
    }

    /// Sends as much of the answer as fits one PDU; the initiator asks for more.
    private mutating func sendText() {
        guard var exchange = text else { preconditionFailure("there is an exchange") }
        let count = min(exchange.outgoing.count - exchange.sent, maxXmitDataSegmentLength)
        let piece = Array(exchange.outgoing[exchange.sent..<exchange.sent + count])
        exchange.sent += count
        if exchange.sent < exchange.outgoing.count {
            text = exchange
            respond(exchange, piece, isFinal: false, continues: true)
        } else if exchange.isFinal {
            text = nil
            respond(exchange, piece, isFinal: true, continues: false)
        } else {
            exchange.outgoing = []
            exchange.sent = 0
            exchange.phase = .collecting
            text = exchange
            respond(exchange, piece, isFinal: false, continues: false)
        }
    }

    private mutating func respond(_ exchange: TextExchange, _ data: [UInt8], isFinal: Bool, continues: Bool) {
        var header = BasicHeader(.textResponse, initiatorTaskTag: exchange.initiatorTaskTag)
        header.bytes[1] = (isFinal ? BasicHeader.finalBit : 0) | (continues ? BasicHeader.continueBit : 0)
        header.store(lun: exchange.lun)
        header.store(isFinal ? PDU.reservedTag : exchange.targetTransferTag, at: 20)
        send(&header, .advancing, data.span)
    }
}
