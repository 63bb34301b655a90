// Package metrics keeps metrics as CloudWatch defines them. A metric is a name
// in a namespace with dimensions; what was measured of it in a minute (or a
// second) is a Set, to which more can be added for two weeks; statistics,
// percentiles included, are made of Sets of any period.
//
// Put returns when its data are durable. What Lapwing measures itself goes
// through a Series, which collects in memory: kill -9 loses the last ten
// seconds of that. After 3 hours seconds become minutes, after 15 days minutes
// become five, after 63 days an hour, and after 455 days they go (CloudWatch,
// "Metrics retention").
//
// # Why bbolt and not a time-series library
//
// The data are keyed by series and time in a B+tree file of go.etcd.io/bbolt.
// Prometheus's tsdb (v0.316) was tried first. It keeps samples that arrive in
// the order of time; CloudWatch takes statistic sets in any order within two
// weeks and adds them to what is there. The out-of-order mode of tsdb lost
// samples under kill -9, its write-ahead log offers no sync, a distribution
// would be three series, and it brings 490 packages, among them the clients of
// Kubernetes and Azure, and 14 MB of binary; bbolt brings 0.3 MB, and one
// transaction is one fsync.
package metrics
