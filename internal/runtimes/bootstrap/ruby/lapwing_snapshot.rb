# frozen_string_literal: true

module Lapwing
  # Watches over a start of which a snapshot may be taken, to make many
  # environments from, and renews afterwards what must differ in each of them.
  #
  # Where the random numbers of Ruby come from, and what becomes of them:
  # SecureRandom, Random.urandom and the seeds of Random.new come from the kernel,
  # which is another one in each environment. The generator behind rand and
  # Array#shuffle is seeded anew, unless the function seeded it: then it wants the
  # same numbers anywhere. OpenSSL takes fresh entropy from the kernel whenever
  # some is added. The seed of hashes stays: it is no secret of one environment.
  # Whoever draws before the snapshot holds what all its clones would share.
  class Snapshot
    class << self
      attr_accessor :watch
    end

    # Tells of random numbers that come from the kernel.
    module Draws
      def new(*seed)
        Snapshot.watch&.drew('Random.new') if seed.empty? && equal?(Random)
        super
      end

      def urandom(size)
        # SecureRandom tries it when it is loaded.
        Snapshot.watch&.drew('Random.urandom') if size > 1
        super
      end
    end

    def initialize
      @reason = ''
      seed
      Random.singleton_class.prepend(Draws)
      Snapshot.watch = self
    end

    # Waits, in a call of restore/next, until this environment is to go on, and
    # adopts what differs in it.
    def wait(client)
      told = check
      answer = JSON.parse(client.restore_next(told))
      if check != told
        # It became so in the meantime, be it before the snapshot or before now.
        client.post('restore/error', JSON.generate(errorType: 'Runtime.Unfit', errorMessage: @reason), 'Lambda-Runtime-Function-Error-Type' => 'Runtime.Unfit')
        exit! 1
      end
      adopt(answer)
    end

    def drew(what)
      return unless @reason.empty?

      at = caller_locations(2).find { |l| !l.path.start_with?('<internal:', __dir__, RbConfig::CONFIG['rubylibdir']) }
      at &&= " in #{at.path.delete_prefix("#{ENV.fetch('LAMBDA_TASK_ROOT', '/var/task')}/")}:#{at.lineno}"
      @reason = "its initialisation draws random numbers (#{what}#{at}), which its clones would share"
    end

    private

    # The generator behind rand has no state to look at. It begins in one that is
    # known, so that it tells by the next number whether anybody has drawn.
    def seed = Random.srand(@seed = Random.new_seed)

    # Nobody chooses a seed as long as those that Ruby makes.
    def chosen? = Random.seed != @seed && Random.seed.bit_length <= 64

    def check
      unless chosen?
        drew('rand') if Random.seed != @seed || Random.bytes(16) != Random.new(@seed).bytes(16)
        seed
      end
      @reason
    end

    def adopt(answer)
      Snapshot.watch = nil
      ENV.update(answer['env'])
      Random.srand unless chosen?
      OpenSSL::Random.random_add(answer['entropy'], answer['entropy'].bytesize.to_f) if defined?(OpenSSL::Random)
    end
  end
end
