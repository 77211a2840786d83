;;; fimble-client.el --- The connection with the fimble language server  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: MIT

;;; Commentary:

;; One server process for the whole Emacs, beside whatever language server a buffer has through Eglot or another
;; client.  It is started when a buffer needs it, and again when it has ended.

;;; Code:

(require 'cl-lib)
(require 'eieio)
(require 'jsonrpc)
(require 'subr-x)

(defun fimble--set (option value)
  "Set OPTION to VALUE, and let the server know."
  (set-default option value)
  (fimble-send-settings))

(defcustom fimble-command '("fimble")
  "The language server's program and its arguments."
  :group 'fimble
  :type '(repeat string)
  :risky t)

(defcustom fimble-settings nil
  "Settings of the server, as a property list: (:maxLines 4 :confidence 0.1).
The README of fimble lists them.  After a change outside of Customize, call
`fimble-send-settings'."
  :group 'fimble
  :type '(plist :key-type symbol :value-type sexp)
  :risky t
  :initialize #'custom-initialize-default
  :set #'fimble--set)

(defcustom fimble-disabled-languages nil
  "Languages without suggestions: names of major modes without \"-mode\".
`fimble-toggle-language' adds and removes that of the buffer."
  :group 'fimble
  :type '(repeat string)
  :initialize #'custom-initialize-default
  :set #'fimble--set)

(defvar fimble-trace-functions nil
  "Called with the report of each request, if `fimble-settings' has :trace t.")

(defvar fimble--ready-hook nil
  "Run when the server can be asked: it has started, or its model is loaded.")
(defvar fimble--lost-hook nil
  "Run when the server has ended.")

(defconst fimble--first-pause 2
  "Seconds before a server that ended is started again; twice as long each time.")
(defconst fimble--longest-pause 60
  "Seconds at most; and after so long a life a server's end counts as the first.")

(defvar fimble--connection nil
  "The connection with the server, if there is one.")
(defvar fimble--ready nil
  "Non-nil once the server has answered to `initialize'.")
(defvar fimble--progress nil
  "What the server is busy with, or nil.")
(defvar fimble--problem nil
  "Why there are no suggestions, or nil.")
(defvar fimble--pause fimble--first-pause
  "Seconds before the next start.")
(defvar fimble--restart nil
  "The timer of the next start.")
(defvar fimble--started-at 0.0
  "When the server was started.")

(defclass fimble-connection (jsonrpc-process-connection)
  ((sent :initform nil :documentation "The number of the latest request."))
  "A connection that knows the numbers of its requests.")

(cl-defmethod jsonrpc-connection-send :before ((connection fimble-connection) &rest message)
  "Note the number that the request MESSAGE has on CONNECTION."
  (when (and (plist-get message :id) (plist-get message :method)
             (not (plist-member message :result)) (not (plist-member message :error)))
    (oset connection sent (plist-get message :id))))

(defun fimble--show-state (problem progress)
  "Let the mode lines show PROBLEM and PROGRESS, texts or nil."
  (setq fimble--problem problem fimble--progress progress)
  (force-mode-line-update t))

(defun fimble--tell (text)
  "Tell the user TEXT, and do not stop them typing."
  (message "fimble: %s" (string-remove-prefix "fimble: " text)))

(defun fimble--fail (problem)
  "Tell the user that there is a PROBLEM, once, and keep it in the mode line."
  (let ((known (equal problem fimble--problem)))
    (fimble--show-state problem nil)
    (unless known (fimble--tell problem))))

(defun fimble--serving-p ()
  "Whether the server can be asked."
  (and fimble--ready fimble--connection (jsonrpc-running-p fimble--connection)))

;;;; Messages

(defun fimble--request (method params success &optional failure)
  "Ask the server METHOD with PARAMS; call SUCCESS or FAILURE with its answer.
Return the number of the request, for `fimble--cancel'."
  (jsonrpc-async-request fimble--connection method params :timeout nil :success-fn success
                         :error-fn (or failure #'ignore))
  (oref fimble--connection sent))

(defun fimble--notify (method params)
  "Tell the server METHOD with PARAMS."
  (jsonrpc-notify fimble--connection method params))

(defun fimble--cancel (number)
  "Tell the server that nobody waits for the answer to request NUMBER any more."
  (when (fimble--serving-p)
    (fimble--notify :$/cancelRequest (list :id number))))

(defun fimble--run-command (command argument success)
  "Have the server run COMMAND with ARGUMENT; give SUCCESS the result."
  (fimble--request :workspace/executeCommand (list :command command :arguments (vector argument)) success
                   (lambda (failure) (fimble--tell (format "%s: %s" command (plist-get failure :message))))))

(defun fimble--section ()
  "The settings in the form that the server knows."
  (append (list :disabledLanguages (vconcat fimble-disabled-languages)) fimble-settings))

(defun fimble-send-settings ()
  "Let the server take over the settings as they are now."
  (interactive)
  (when (fimble--serving-p)
    (fimble--notify :workspace/didChangeConfiguration (list :settings (list :fimble (fimble--section)))))
  (force-mode-line-update t))

(defun fimble--answer (_connection method params)
  "Answer the server's request METHOD with PARAMS."
  (pcase method
    ('workspace/configuration (vconcat (mapcar (lambda (_) (fimble--section)) (plist-get params :items))))
    ;; A dialogue in the middle of typing would take the next keys for the answer.
    ('window/showMessageRequest
     (fimble--tell (concat (plist-get params :message)
                           (unless (seq-empty-p (plist-get params :actions)) " (M-x fimble-restart-worker)")))
     nil)
    (_ (jsonrpc-error :code -32601 :message (format "fimble.el does not know %s" method)))))

(defun fimble--hear (_connection method params)
  "Take note of the server's notification METHOD with PARAMS."
  (pcase method
    ('window/showMessage (fimble--tell (plist-get params :message)))
    ('fimble/trace (run-hook-with-args 'fimble-trace-functions params))
    ('fimble/refresh (run-hooks 'fimble--ready-hook))
    ('fimble/status
     (let ((state (plist-get params :state)))
       (pcase state
         ("error" (fimble--fail (plist-get params :message)))
         ("loading" (fimble--show-state nil (format "loading %d%%" (* 100 (plist-get params :progress)))))
         (_ (fimble--show-state nil (unless (equal state "idle") state))))))))

;;;; The process

(defconst fimble--capabilities
  '( :general (:positionEncodings ["utf-32"]) ; Emacs' characters
     :workspace (:configuration t)
     :textDocument (:inlineCompletion (:dynamicRegistration :json-false))
     :experimental (:fimble (:refresh t :status t)))
  "What this client can do.")

(defun fimble--make-process (program)
  "Run PROGRAM with the arguments of `fimble-command'."
  (make-process :name "fimble" :command (cons program (cdr fimble-command)) :connection-type 'pipe
                :coding 'utf-8-emacs-unix :noquery t :stderr (get-buffer-create "*fimble stderr*")))

(defun fimble--start ()
  "Start the server, unless there is one or its next start is planned."
  (unless (or fimble--restart (and fimble--connection (jsonrpc-running-p fimble--connection)))
    ;; A folder's own variables (.dir-locals.el, direnv) must not choose the program or its environment.
    (let* ((process-environment (default-toplevel-value 'process-environment))
           (exec-path (default-toplevel-value 'exec-path))
           (default-directory "/")
           (program (executable-find (car fimble-command))))
      (if program
          (fimble--connect program)
        (fimble--fail (format "no command `%s'; see the option `fimble-command'" (car fimble-command)))))))

(defun fimble--connect (program)
  "Start PROGRAM as the server and introduce this client."
  (let* (process
         (quiet (if (slot-exists-p 'fimble-connection '-events-buffer-config) ; jsonrpc 1.0.18
                    '(:events-buffer-config (:size 0))
                  '(:events-buffer-scrollback-size 0)))
         (connection (apply #'make-instance 'fimble-connection
                            :name "fimble"
                            :process (lambda () (setq process (fimble--make-process program)))
                            :request-dispatcher #'fimble--answer
                            :notification-dispatcher #'fimble--hear
                            :on-shutdown (lambda (connection) (fimble--ended connection process))
                            quiet)))
    (setq fimble--connection connection fimble--ready nil fimble--started-at (float-time))
    (fimble--show-state nil "starting")
    (fimble--request :initialize
                     (list :processId (emacs-pid) :rootUri nil :capabilities fimble--capabilities
                           :clientInfo (list :name "Emacs" :version emacs-version))
                     (lambda (answer) (fimble--initialized connection answer))
                     (lambda (failure) ; a server that died is reported when its process ends
                       (unless (eql (plist-get failure :code) -1)
                         (fimble--fail (format "the server refused to start: %s" (plist-get failure :message))))))))

(defun fimble--initialized (connection answer)
  "Go on after the server's ANSWER to `initialize' on CONNECTION."
  (when (eq connection fimble--connection)
    (if (not (equal (plist-get (plist-get answer :capabilities) :positionEncoding) "utf-32"))
        (fimble--fail (format "`%s' is no fimble: it does not count in utf-32" (car fimble-command)))
      (fimble--notify :initialized (make-hash-table))
      (setq fimble--ready t)
      (fimble--show-state nil nil)
      (run-hooks 'fimble--ready-hook))))

(defun fimble--ended (connection process)
  "Report the end of CONNECTION's PROCESS and plan its next start."
  (when (eq connection fimble--connection)
    (setq fimble--connection nil fimble--ready nil)
    (run-hooks 'fimble--lost-hook)
    (when (> (- (float-time) fimble--started-at) fimble--longest-pause)
      (setq fimble--pause fimble--first-pause))
    (fimble--show-state nil nil)
    (fimble--fail (format "the server has ended (%s %d), starts again in %d s; see M-x fimble-show-log, `fimble doctor'"
                          (if (eq (process-status process) 'signal) "signal" "status")
                          (process-exit-status process) fimble--pause))
    (setq fimble--restart (run-with-timer fimble--pause nil (lambda () (setq fimble--restart nil) (fimble--start)))
          fimble--pause (min fimble--longest-pause (* 2 fimble--pause)))))

(defun fimble--stop ()
  "Let the server leave in its own time."
  (when fimble--restart
    (cancel-timer fimble--restart)
    (setq fimble--restart nil))
  (let ((connection fimble--connection))
    (setq fimble--connection nil fimble--ready nil fimble--pause fimble--first-pause)
    (fimble--show-state nil nil)
    (run-hooks 'fimble--lost-hook)
    (when (and connection (jsonrpc-running-p connection))
      (jsonrpc-async-request connection :shutdown nil :success-fn (lambda (_) (jsonrpc-notify connection :exit nil))
                             :timeout 5 :timeout-fn (lambda () (jsonrpc-shutdown connection))))))

(defun fimble--leave ()
  "Give the server the time to write down its counts when Emacs ends."
  (when (fimble--serving-p)
    (let ((connection fimble--connection))
      (setq fimble--connection nil)
      (ignore-errors
        (jsonrpc-request connection :shutdown nil :timeout 1)
        (jsonrpc-notify connection :exit nil)))))

(add-hook 'kill-emacs-hook #'fimble--leave)

;;;###autoload
(defun fimble-restart-server ()
  "Start the language server anew."
  (interactive)
  (fimble--stop)
  (fimble--start))

(defun fimble-restart-worker ()
  "Start the model's process anew."
  (interactive)
  (if (fimble--serving-p)
      (fimble--request :workspace/executeCommand (list :command "fimble.restartWorker" :arguments []) #'ignore)
    (fimble-restart-server)))

(defun fimble-show-log ()
  "Show what the server has written to its standard error."
  (interactive)
  (let ((buffer (or (get-buffer "*fimble events*") (get-buffer " *fimble stderr*"))))
    (if buffer
        (display-buffer buffer)
      (fimble--tell "the server has not been started yet"))))

(provide 'fimble-client)
;;; fimble-client.el ends here
