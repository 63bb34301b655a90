# frozen_string_literal: true

module Lapwing
  # Writes log records as frames, so that a record of several lines stays one:
  # type, length, time in microseconds (all big endian), text.
  class Logs < Logger::LogDevice
    FRAME = 0xa55a0003

    class << self
      attr_reader :sink

      # Takes the descriptor that the platform reads frames from. Without one,
      # output is as Ruby has it.
      def open(descriptor)
        return unless descriptor

        @sink = new(IO.new(Integer(descriptor), 'wb'))
        Kernel.module_eval do
          def puts(*things)
            text = things.flatten.map { |thing| thing.to_s.encode('UTF-8') }.join("\n")
            Lapwing::Logs.sink.write(text.chomp)
            nil
          end
        end
        Logger.prepend(Redirect)
      rescue SystemCallError
        @sink = nil
      end
    end

    def initialize(io) # rubocop:disable Lint/MissingSuper
      @io = io
      @io.sync = true
      @lock = Mutex.new
    end

    def write(text)
      text = text.b
      now = Process.clock_gettime(Process::CLOCK_REALTIME, :microsecond)
      @lock.synchronize { @io.write([FRAME, text.bytesize, now].pack('L>L>Q>'), text) }
    end

    def reopen(_log = nil, **) = self

    def close; end

    # Sends what a Logger would write to the standard streams to the sink.
    module Redirect
      def initialize(device, *rest, **options)
        if device.nil? || device == $stdout || device == $stderr
          device = Logs.sink
          options = { formatter: Formatter.new, **options } unless options[:formatter]
        end
        super(device, *rest, **options)
      end
    end

    # Ruby's own format with the request id.
    class Formatter < Logger::Formatter
      def call(severity, time, program, message)
        text = format('%<short>s, [%<time>s #%<pid>d] %<severity>5s %<id>s -- %<program>s: %<message>s',
                      short: severity[0], time: format_datetime(time), pid: Process.pid, severity: severity,
                      id: Loop.request_id, program: program, message: msg2str(message))
        text.encode('UTF-8')
      end
    end
  end
end
