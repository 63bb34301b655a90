// Package edge is a location of the content delivery network: it serves viewers
// what distributions say, from its cache or from origins.
//
// Server is the pipeline of a request, an http.Handler:
//
//	host → distribution, path → behaviour
//	→ method, viewer protocol, country, signature
//	→ viewer-request function
//	→ cache ─ hit ──────────────────────────────────────────────┐
//	    └ miss → origin-request function → origin               │
//	              → origin-response function → store ───────────┤
//	→ custom error page → viewer-response function → response headers policy → viewer
//
// The packages below it each hold one idea: distribution is what is served, policy
// the rules of behaviours, cache and freshness the store and its rules, origin
// talks to origins, signed and geo judge viewers, trigger runs functions, and
// viewer has the listeners. What a viewer sees is what CloudFront would answer
// (CloudFront developer guide).
package edge
