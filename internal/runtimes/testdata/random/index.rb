# Answers with samples of every generator of random numbers that Ruby has; an
# event of nil draws none.

require 'openssl'
require 'securerandom'

Random.seed # otherwise the generator behind rand is seeded when it is first used
OpenSSL::Random.random_bytes(1) # as a TLS connection does: OpenSSL's generators have been seeded

def handler(event:, context:)
  return if event.nil?

  {
    'rand' => rand,
    'Random.rand' => Random.rand,
    'Random.bytes' => Random.bytes(16).unpack1('H*'),
    'Random.new' => Random.new.rand,
    'Array#shuffle' => (1..100).to_a.shuffle.join(','),
    'Array#sample' => (1..(1 << 40)).step(1 << 10).first(50_000).sample(8).join(','),
    'SecureRandom.uuid' => SecureRandom.uuid,
    'OpenSSL::Random' => OpenSSL::Random.random_bytes(16).unpack1('H*')
  }
end
