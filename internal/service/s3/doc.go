// Package s3 is the behaviour of Amazon S3: buckets and objects that the
// platform itself needs (code packages, event sources) and that functions use.
//
// # How objects are kept
//
// The index is three collections of internal/state, and so is in memory:
// buckets, one record for every object version or delete marker, and multipart
// uploads with their parts. Memory is the limit: about 2 KB a version, so a
// server is meant for some hundred thousand versions. Listing walks the index
// in key order and jumps over what a delimiter folds together: a page of 1,000
// keys takes about a millisecond.
//
// Bodies are files in a set of blobs that belongs to this package, named by
// the SHA-256 of their content. An object is a list of them: one for a put,
// one for each part of a multipart upload. Copying an object copies its
// record. Package-internal reference counts (references) say when a blob is
// needed by no record and no running request any more, and then it is removed;
// what a crash leaves is found at the next start, since records are written
// after their blobs and removed before them.
//
// # Why no library
//
// gofakes3 (and rclone's fork of it) is a test double: it has no conditional
// writes, no checksums beyond MD5, and keeps whole objects in memory.
// versitygw is a full gateway with its own HTTP server (fasthttp), its own
// authentication and error types, and a POSIX back end that keeps metadata in
// extended attributes. Both start at the HTTP request, which Lapwing's gateway
// has already authenticated and decoded with the shapes that all its services
// share; what would remain of them is less than what follows here.
//
// # What is refused
//
// Every member of a request that this package does not honour, and that is not
// a default without effect, is refused with NotImplemented or a more exact
// code: encryption, access control lists other than private, object locks,
// storage classes other than STANDARD. There is one account, which owns every
// bucket.
//
// Bucket policies, blocks of public access and ownership controls are kept and
// held to AWS's rules when they are put; who may do what is the gateway's to
// say, and nobody outside of the account may do anything.
package s3
