;;; fimble.el --- Ghost text from the fimble language server  -*- lexical-binding: t; -*-

;; Author: The fimble developers
;; Version: 0.1.0
;; Package-Requires: ((emacs "28.1"))
;; Keywords: convenience, languages
;; URL: https://fimble.invalid/
;; The project has no address yet, and nobody can own this one (RFC 2606).

;; SPDX-License-Identifier: MIT

;;; Commentary:

;; Code completion from a model on your own machine, as ghost text behind the cursor.
;;
;;     (add-to-list 'load-path "/path/to/fimble/editors/emacs")
;;     (require 'fimble)
;;     (setq fimble-command '("/path/to/fimble/.venv/bin/fimble"))
;;     (global-fimble-mode)
;;
;; While ghost text is shown, TAB accepts it, M-f its next word, M-e its next line, M-n and M-p turn to others, and
;; C-g dismisses it; see `fimble-ghost-map'.  C-c + asks for it; see `fimble-mode-map'.
;;
;; fimble has a server and a connection of its own, so it works beside Eglot or whatever else serves a buffer.

;;; Code:

(require 'cl-lib)
(require 'fimble-client)
(require 'fimble-mirror)
(require 'fimble-ghost)

(defgroup fimble nil
  "Ghost text from the fimble language server."
  :group 'convenience
  :prefix "fimble-")

(defcustom fimble-idle-delay 0.1
  "Seconds after which the cursor rests: the model may then read what is there."
  :type 'number)

(defcustom fimble-inhibit-functions '(fimble-menu-p fimble-commanding-p)
  "Functions that forbid ghost text: none is shown if one returns non-nil."
  :type 'hook)

(defvar fimble-ghost-map
  (let ((map (make-sparse-keymap)))
    (define-key map (kbd "TAB") #'fimble-accept)
    (define-key map (kbd "<tab>") #'fimble-accept)
    (define-key map (kbd "M-f") #'fimble-accept-word)
    (define-key map (kbd "M-e") #'fimble-accept-line)
    (define-key map (kbd "M-n") #'fimble-next)
    (define-key map (kbd "M-p") #'fimble-previous)
    (define-key map (kbd "C-g") #'fimble-dismiss)
    map)
  "Keys while ghost text is shown; they come before those of other modes.")

(defvar fimble-mode-map
  (let ((map (make-sparse-keymap)))
    (define-key map (kbd "C-c +") #'fimble-complete)
    map)
  "Keys in `fimble-mode'.")

(defvar fimble-mode)
(defvar-local fimble--place nil
  "The text and the cursor's place in it after the last command.")
(defvar-local fimble--typed nil
  "The place where the text was last changed by a command.")
(defvar-local fimble--asked nil
  "The number of the request that is waited for.")
(defvar-local fimble--hidden nil
  "Non-nil if nothing could be shown after the last command.")
(defvar-local fimble--rested nil
  "The place of which the server was last told that the cursor rests there.")

(defvar fimble--keys `((fimble--overlay . ,fimble-ghost-map))
  "The keys while ghost text is shown, for `emulation-mode-map-alists'.")

;;;; What may be shown

(defun fimble-menu-p ()
  "Whether a menu of completions is open."
  (or completion-in-region-mode (bound-and-true-p company-candidates)))

(defun fimble-commanding-p ()
  "Whether keys are no text: with Evil outside of insert state, with many cursors."
  (or (and (bound-and-true-p evil-local-mode) (not (memq (bound-and-true-p evil-state) '(insert replace emacs))))
      (bound-and-true-p multiple-cursors-mode)))

(defun fimble--off-p ()
  "Whether the buffer's language is switched off."
  (member (fimble--language) fimble-disabled-languages))

(defun fimble--free-p ()
  "Whether ghost text may be shown in the current buffer now."
  (not (or (fimble--off-p) buffer-read-only executing-kbd-macro
           (not (eq (current-buffer) (window-buffer)))
           (run-hook-with-args-until-success 'fimble-inhibit-functions))))

(defun fimble--here ()
  "Name the buffer's text and the cursor's place in it."
  (cons (buffer-chars-modified-tick) (point)))

;;;; Asking

(defun fimble--forget-question ()
  "Cancel the request that is waited for."
  (when fimble--asked
    (fimble--cancel fimble--asked)
    (setq fimble--asked nil)))

(defun fimble--ask (method params act)
  "Ask METHOD with PARAMS; call ACT with the answer if that still fits.
Whatever was asked before is cancelled."
  (fimble--forget-question)
  (let ((buffer (current-buffer)) (place (fimble--here)) number)
    (setq number (fimble--request
                  method params
                  (lambda (answer)
                    (when (buffer-live-p buffer)
                      (with-current-buffer buffer
                        (when (eql number fimble--asked)
                          (setq fimble--asked nil)
                          (when (and fimble-mode (equal place (fimble--here)) (fimble--free-p))
                            (funcall act answer))))))
                  (lambda (failure)
                    (when (buffer-live-p buffer)
                      (with-current-buffer buffer
                        (when (eql number fimble--asked)
                          (setq fimble--asked nil)
                          (fimble--tell (plist-get failure :message)))))))
          fimble--asked number)))

(defun fimble--show (answer)
  "Show the first suggestion of ANSWER; return nil if there is none."
  (let ((items (if (vectorp answer) answer (plist-get answer :items))))
    (setq fimble--ghost (unless (seq-empty-p items) (fimble--ghost-from (elt items 0))))
    (fimble--draw)))

(defun fimble--suggest ()
  "Ask for a suggestion at point, as for one that nobody has asked for."
  (when (fimble--sync)
    (fimble--ask :textDocument/inlineCompletion (append (fimble--where) '(:context (:triggerKind 2))) #'fimble--show)))

(defun fimble--suggest-again ()
  "Ask again where the user was typing when the server could not answer."
  (with-current-buffer (window-buffer)
    (when (and fimble-mode (equal fimble--typed (fimble--here)) (fimble--free-p))
      (fimble--suggest))))

(defun fimble--update ()
  "Keep showing what agrees with the text, and ask about a new one."
  (let* ((place (fimble--here))
         (free (fimble--free-p))
         (moved (not (equal place fimble--place)))
         (typed (not (eql (car place) (car fimble--place)))))
    (setq fimble--place place)
    (when typed
      (setq fimble--typed place))
    (when moved
      (fimble--forget-question))
    (cond ((not free) (when fimble--ghost (fimble--hide)))
          (moved (fimble--draw)))
    ;; Also where a menu has just been closed.
    (when (and free (or typed (and (not moved) (not fimble--ghost) fimble--hidden (equal place fimble--typed))))
      (fimble--suggest))
    (setq fimble--hidden (not free))))

(defun fimble--make-room (&rest _)
  "Hide ghost text: a menu of completions has opened."
  (when (and fimble-mode fimble--ghost)
    (setq fimble--hidden t)
    (fimble--hide)))

(defun fimble--rest-here ()
  "Tell the server where the cursor rests, and in which version of the text."
  (when (and fimble-mode (not (fimble--off-p)) (not (equal fimble--rested (fimble--here))) (fimble--sync))
    (setq fimble--rested (fimble--here))
    (let ((where (fimble--where)))
      (plist-put (plist-get where :textDocument) :version fimble--version)
      (fimble--notify :fimble/cursor where))))

;;;; Commands

(defun fimble--must-serve ()
  "Signal an error with the reason if the server can't be asked."
  (unless fimble-mode
    (user-error "Use M-x fimble-mode first"))
  (unless (fimble--sync)
    (fimble--start)
    (user-error "fimble: %s" (or fimble--problem fimble--progress "starting"))))

(defun fimble-complete ()
  "Ask for the best suggestion at point, however sure the model is."
  (interactive)
  (fimble--must-serve)
  (fimble--ask :textDocument/inlineCompletion (append (fimble--where) '(:context (:triggerKind 1)))
               (lambda (answer)
                 (unless (fimble--show answer)
                   (fimble--tell (or fimble--progress "nothing to suggest here"))))))

(defun fimble-accept ()
  "Insert the suggestion that is shown."
  (interactive)
  (pcase-let ((`(,text . ,covers) (or (fimble--rest) (user-error "No suggestion is shown")))
              (command (fimble--ghost-command fimble--ghost)))
    (fimble--hide)
    (fimble--insert text covers)
    (when (and command (fimble--sync))
      (fimble--run-command (plist-get command :command) (elt (plist-get command :arguments) 0) #'ignore))))

(defun fimble--accept-part (command)
  "Insert a part of the suggestion: what the server's COMMAND leads to."
  (unless fimble--ghost
    (user-error "No suggestion is shown"))
  (fimble--must-serve)
  (let* ((where (append (fimble--where) '(:apply :json-false)))
         (part (jsonrpc-request fimble--connection :workspace/executeCommand
                                (list :command command :arguments (vector where)) :timeout 2))
         (range (plist-get part :range)))
    (if part
        (fimble--insert (plist-get part :insertText)
                        (- (plist-get (plist-get range :end) :character)
                           (plist-get (plist-get where :position) :character)))
      (fimble--hide))))

(defun fimble-accept-word ()
  "Insert the next word of the suggestion that is shown."
  (interactive)
  (fimble--accept-part "fimble.acceptWord"))

(defun fimble-accept-line ()
  "Insert the next line of the suggestion that is shown."
  (interactive)
  (fimble--accept-part "fimble.acceptLine"))

(defun fimble-dismiss ()
  "Send the suggestion away, so that it does not come back by itself."
  (interactive)
  (fimble--forget-question)
  (fimble--hide)
  (when (fimble--sync)
    (fimble--run-command "fimble.dismiss" (fimble--where) #'ignore)))

(defun fimble-next (&optional back)
  "Turn to another suggestion; with BACK, or a prefix argument, to the last one."
  (interactive "P")
  (fimble--must-serve)
  (fimble--ask :workspace/executeCommand
               (list :command "fimble.cycle" :arguments (vector (append (fimble--where) (if back '(:back t)))))
               (lambda (answer)
                 (cond ((not (fimble--show answer)) (fimble--tell "nothing to suggest here"))
                       ((= 1 (length (plist-get answer :items))) (fimble--tell "no other suggestion here"))))))

(defun fimble-previous ()
  "Turn to the suggestion before this one."
  (interactive)
  (fimble-next t))

(defun fimble-toggle-language ()
  "Switch suggestions off for the buffer's language, or on again."
  (interactive)
  (let ((language (fimble--language)))
    (fimble--hide)
    (customize-set-variable 'fimble-disabled-languages
                            (if (fimble--off-p)
                                (remove language fimble-disabled-languages)
                              (cons language fimble-disabled-languages)))
    (fimble--tell (format "%s for %s" (if (fimble--off-p) "off" "on") language))))

(defun fimble-completion-at-point ()
  "Suggestions for `completion-at-point-functions'.
It waits for the model, until a key comes; ghost text does not."
  (when (and fimble-mode (not (fimble--off-p)) (fimble--sync))
    (let* ((start (save-excursion (skip-syntax-backward "w_") (point)))
           (word (buffer-substring-no-properties start (point)))
           (answer (jsonrpc-request fimble--connection :textDocument/inlineCompletion
                                    (append (fimble--where) '(:context (:triggerKind 1)))
                                    :timeout 10 :cancel-on-input t))
           (found (mapcar (lambda (item) (fimble--candidate item word)) (plist-get answer :items))))
      (when found
        (list start (point) (delete-dups (mapcar #'car found)) :exclusive 'no
              :annotation-function (lambda (text) (if (cddr (assoc text found)) " fimble …" " fimble"))
              :exit-function (lambda (text status)
                               (pcase (and (eq status 'finished) (assoc (substring-no-properties text) found))
                                 (`(,_ ,covers . ,lines) (fimble--finish lines covers)))))))))

;;;; The mode

(defun fimble--lighter ()
  "The words in the mode line."
  (let ((state (cond ((fimble--off-p) "off")
                     (fimble--problem (truncate-string-to-width fimble--problem 40 nil nil t))
                     (fimble--progress))))
    (concat " fimble" (when state (concat ":" (string-replace "%" "%%" state))))))

(defun fimble--lost ()
  "Hide what the server can't be asked about any more."
  (dolist (buffer (buffer-list))
    (with-current-buffer buffer
      (when fimble-mode
        (setq fimble--asked nil)
        (fimble--hide)))))

;;;###autoload
(define-minor-mode fimble-mode
  "Show suggestions as ghost text while you type.
While one is shown, these keys are in effect:

\\{fimble-ghost-map}"
  :lighter (:eval (fimble--lighter))
  (cond
   ((and fimble-mode (or (buffer-base-buffer) (not enable-multibyte-characters)))
    (setq fimble-mode nil)
    (fimble--tell "an indirect or unibyte buffer can't have suggestions"))
   (fimble-mode
    (setq fimble--place (fimble--here) fimble--hidden nil)
    (fimble--mirror-mode 1)
    (add-hook 'post-command-hook #'fimble--update 90 t)
    (add-hook 'change-major-mode-hook #'fimble--hide nil t) ; which forgets the overlay
    (fimble--start))
   (t
    (fimble--forget-question)
    (fimble--hide)
    (fimble--mirror-mode -1)
    (remove-hook 'post-command-hook #'fimble--update t)
    (remove-hook 'change-major-mode-hook #'fimble--hide t))))

(defun fimble--turn-on ()
  "Turn on `fimble-mode' in a buffer that somebody may type in."
  (unless (or (minibufferp) (string-prefix-p " " (buffer-name)) (buffer-base-buffer)
              (not enable-multibyte-characters))
    (fimble-mode)))

;;;###autoload
(define-globalized-minor-mode global-fimble-mode fimble-mode fimble--turn-on
  :group 'fimble
  :predicate '(prog-mode conf-mode sgml-mode yaml-mode yaml-ts-mode toml-ts-mode html-ts-mode))

(add-to-list 'emulation-mode-map-alists 'fimble--keys)
(add-hook 'company-completion-started-hook #'fimble--make-room)
(add-hook 'completion-in-region-mode-hook #'fimble--make-room)
(add-hook 'fimble--ready-hook #'fimble--suggest-again)
(add-hook 'fimble--lost-hook #'fimble--lost)
(run-with-idle-timer fimble-idle-delay t #'fimble--rest-here)

(provide 'fimble)
;;; fimble.el ends here
