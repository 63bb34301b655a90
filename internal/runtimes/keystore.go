package runtimes

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // of the format, which protects nothing that is secret
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"unicode/utf16"
)

// javaKeyStore makes a Java key store (JKS, version 2) of the certificates in a
// PEM bundle: Java reads no PEM. Distributions make theirs with Java, which need
// not be here. The password is the JDK's own, "changeit".
func javaKeyStore(bundle []byte) []byte {
	var ders [][]byte
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			ders = append(ders, block.Bytes)
		}
	}
	var b bytes.Buffer
	number := func(n int) { b.Write(binary.BigEndian.AppendUint32(nil, uint32(n))) }
	text := func(s string) {
		b.Write(binary.BigEndian.AppendUint16(nil, uint16(len(s))))
		b.WriteString(s)
	}
	const magic, version, trusted = 0xfeedfeed, 2, 2
	number(magic)
	number(version)
	number(len(ders))
	for i, der := range ders {
		number(trusted)
		text(fmt.Sprintf("ca-%d", i))
		b.Write(make([]byte, 8)) // when it was added: the same tree each time
		text("X.509")
		number(len(der))
		b.Write(der)
	}
	h := sha1.New()
	for _, c := range utf16.Encode([]rune("changeit")) {
		h.Write(binary.BigEndian.AppendUint16(nil, c))
	}
	h.Write([]byte("Mighty Aphrodite")) // as the format has it
	h.Write(b.Bytes())
	return h.Sum(b.Bytes())
}
