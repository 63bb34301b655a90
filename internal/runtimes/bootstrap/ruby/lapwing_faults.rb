# frozen_string_literal: true

module Lapwing
  # An error as the caller of a function gets it.
  class Fault
    # Classes whose names the platform is told; the others are the function's own.
    TOLD = %w[ArgumentError NoMethodError Exception StandardError NameError LoadError SystemExit SystemStackError].freeze
    LINES = 100

    # where is Function, Init or Runtime.
    def initialize(error, where)
      @error = error
      @where = where
    end

    def type = "#{@where}<#{@error.class}>"

    def told_type = TOLD.include?(@error.class.to_s) ? type : 'Function<UserException>'

    def body
      { errorMessage: text(@error.message), errorType: type, stackTrace: trace }
    end

    def log(message)
      puts message
      puts JSON.pretty_generate(body)
    end

    private

    # The lines of the function, without those of this program below them.
    def trace
      (@error.backtrace || []).first(LINES).take_while { |line| !line.start_with?(__dir__) }.map { |line| text(line) }
    end

    def text(string) = string.dup.force_encoding('UTF-8').scrub
  end
end
