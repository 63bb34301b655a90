package function

// URL is a function URL as it is configured at one moment.
type URL struct {
	ID string // 32 lower-case letters and digits
	// FunctionARN names the function, with the alias where the URL is one's.
	FunctionARN string
	// IAM is set for AuthType AWS_IAM: callers sign their requests.
	IAM bool
	// Public tells whether the resource policy lets everyone invoke a URL of
	// AuthType NONE.
	Public    bool
	Streaming bool  // InvokeMode RESPONSE_STREAM
	CORS      *CORS // nil: none configured, preflights are the function's own business
}

// CORS is the cross-origin configuration of a function URL (Lambda API
// reference, Cors).
type CORS struct {
	AllowCredentials bool
	AllowHeaders     []string
	AllowMethods     []string
	AllowOrigins     []string
	ExposeHeaders    []string
	MaxAge           int // seconds that a preflight may be cached; 0: not
}
